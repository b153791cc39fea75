"""Ctrl+C, SIGTERM and SIGHUP: one line, exit code 130, in time, whatever the process does just then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paredown import signals
from paredown.signals import GRACE_SECONDS
from shared.commands import call, command, environment, write_study

PROC = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="what a process listens to is found through /proc"
)
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

SWALLOWS = """
class Library:
    def __del__(self):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            sum(range(1000))
while True:
    Library()
    stop_if_asked()
"""
NEVER_LOOKS = "while True:\n    time.sleep(60)\n"
LOOKS = "while True:\n    time.sleep(0.01)\n    stop_if_asked()\n"
ENDING = "import atexit\natexit.register(time.sleep, 1.0)\n"


def started(work: str) -> subprocess.Popen[str]:
    """A process whose command is this program; it says a line when it works."""
    program = (
        "import sys, time, types\n"
        "from paredown import entry\n"
        "from paredown.space.system.interruption import stop_if_asked\n"
        "sys.argv = ['paredown', 'search', 'a study.yaml']\n"
        f"def run():\n    print('works', flush=True)\n    exec({work!r}, globals())\n"
        "entry._command = run\n"
        "entry.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], **PIPES)
    assert process.stdout
    process.stdout.readline()
    return process


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, float]:
    """Exit code and standard error of a process that gets a signal, and how long it took."""
    begun = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_work_ends_at_its_next_safe_point(number: int) -> None:
    """With one line that says how to go on."""
    with started(LOOKS) as process:
        assert ended(process, number)[:2] == (130, "stopped; to resume: paredown search 'a study.yaml'\n")


def test_only_what_resumes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that keeps nothing can only be run again."""
    for command_line, words in (("search s.yaml", "resume"), ("search s.yaml --dry-run", "run it again")):
        monkeypatch.setattr(sys, "argv", ["paredown", *command_line.split()])
        assert signals.last_words() == f"stopped; to {words}: paredown {command_line}"
    monkeypatch.setattr(sys, "argv", ["paredown", "inspect", "m"])
    assert signals.last_words() == "stopped; to run it again: paredown inspect m"


def test_no_library_swallows_a_signal() -> None:
    """It raises nothing within one, where an object is about to go, say: Python would only complain of it."""
    with started(SWALLOWS) as process:
        code, said, _ = ended(process, signal.SIGINT)
        assert (code, said.count("\n")) == (130, 1)


def test_what_never_looks_is_ended_all_the_same() -> None:
    """After the time of grace, with the same line; a second signal is not kept waiting."""
    with started(NEVER_LOOKS) as process:
        code, said, took = ended(process, signal.SIGINT)
        assert (code, said) == (130, "stopped; to resume: paredown search 'a study.yaml'\n")
        assert GRACE_SECONDS - 0.1 < took < GRACE_SECONDS + 2
    with started(NEVER_LOOKS) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        code, said, took = ended(process, signal.SIGTERM)
        assert (code, said.count("\n")) == (130, 1)
        assert took < GRACE_SECONDS / 2


def test_what_is_done_is_not_stopped() -> None:
    """A signal while the interpreter ends changes neither the exit code nor what was said."""
    with started(ENDING) as process:
        time.sleep(0.5)
        assert ended(process, signal.SIGINT)[:2] == (0, "")


def test_nohup_is_respected() -> None:
    """Where SIGHUP was ignored before, it still is."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started(LOOKS)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        assert ended(process, signal.SIGINT)[0] == 130


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether a process has a handler for SIGTERM, which Python itself has not."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def waited(process: subprocess.Popen[str], moment: str) -> str:
    """What a search said until it began a step; with no step named, until it listens, in the middle of its imports."""
    said = ""
    while not moment and not listens(process):
        time.sleep(0.005)
    while moment and moment not in said:
        assert process.stderr
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@PROC
def test_a_search_is_stopped_at_any_step(
    pico: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it imports, at sensitivities, among finalists: soon, on a busy machine too; the same command goes on."""
    study, out = write_study(tmp_path, pico("llama")), tmp_path / "study"
    same = command("search", study, "--trials", 3, "--out", out)
    for moment in ("", "sensitivity", "finalists"):
        with subprocess.Popen(same, **PIPES, env=environment()) as process:
            said = waited(process, moment)
            code, rest, took = ended(process, signal.SIGINT)
        lines = (said + rest).splitlines()
        assert (code, took < 10) == (130, True), (moment, took, rest)
        assert [line for line in lines if line.startswith("stopped")] == lines[-1:], lines
        assert lines[-1].endswith(f"to resume: paredown search {study} --trials 3 --out {out}")
        assert (str(out / "best" / "plan.yaml") in lines[-1]) == bool(moment)
    assert call(monkeypatch, "search", study, "--trials", 3, "--out", out) == 0
    assert os.listdir(out / "best") == ["plan.yaml"]
