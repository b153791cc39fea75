"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from paredown.space.system import child, interruption
from paredown.space.system.interruption import Stopped

HEAVY = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); import torch, transformers, time; time.sleep(600)\n"
SLOW = "import sys, time; print(*sys.argv[1:]); print('no', file=sys.stderr)\n"
SLOW += "time.sleep(float(sys.argv[1])); sys.exit(7)\n"
LONGEST_SECONDS = 2.0


def program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text)
    return path


def dies(pid: int, seconds: float = LONGEST_SECONDS) -> bool:
    """Whether a process is gone, or waits to be buried, within so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are found through /proc")
@pytest.mark.parametrize("platform", [sys.platform, "other"])
def test_it_dies_with_its_parent(platform: str, tmp_path: Path) -> None:
    """Killed as hard as can be, while the child imports; by the kernel's help, and where there is none."""
    heavy, begun = program(tmp_path, HEAVY), tmp_path / "begun"
    watcher = Path(child.__file__).read_text().replace("sys.platform", repr(platform))
    (tmp_path / "child.py").write_text(watcher)
    parent = (
        "import subprocess, sys, time\nfrom paredown.space.system import child\n"
        "child.__file__ = sys.argv[1]\n"
        "print(subprocess.Popen(child.command(*sys.argv[2:])).pid, flush=True)\ntime.sleep(600)\n"
    )
    arguments = [str(tmp_path / "child.py"), str(heavy), str(begun)]
    with subprocess.Popen([sys.executable, "-c", parent, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        while not begun.exists():
            time.sleep(0.01)
        assert not dies(pid, 0.5)
        process.kill()
        process.wait()
    assert dies(pid)


def test_what_it_wrote_and_its_exit_code_are_told(tmp_path: Path) -> None:
    """Both streams, and arguments as they were given."""
    found = child.finished(program(tmp_path, SLOW), "0.3", "a b", environment=os.environ)
    assert (found.returncode, found.stdout, found.stderr) == (7, "0.3 a b\n", "no\n")


def test_it_is_killed_where_a_stop_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once."""
    monkeypatch.setattr(interruption, "_asked", False)
    threading.Timer(0.5, interruption.ask_to_stop).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        child.finished(program(tmp_path, SLOW), "60", environment=os.environ)
    assert time.monotonic() - begun < 10


def test_children_that_ignore_a_polite_end_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others end by themselves; all are buried afterwards."""
    monkeypatch.setattr(child, "LONGEST_END_SECONDS", 0.5)
    begun = tmp_path / "begun"
    deaf = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stubborn = child.started(
        program(tmp_path, f"{deaf}pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"),
        str(begun),
        environment=os.environ,
    )
    while not begun.exists():
        time.sleep(0.01)
    meek = child.started(program(tmp_path, SLOW), "600", environment=os.environ)
    child.end([stubborn, meek])
    assert (stubborn.returncode, meek.returncode) == (-signal.SIGKILL, -signal.SIGTERM)
