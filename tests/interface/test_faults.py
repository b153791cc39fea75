"""Whatever goes wrong is told in a line, with an exit code: no command shows a traceback."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from sqlalchemy import create_engine, text

from paredown.entry import exit_code
from paredown.space.errors import BudgetError, StudyError
from shared.commands import command, environment
from shared.disk import small_disk


def fault_of(work: Callable[[], object]) -> Exception:
    """What a piece of work raises."""
    try:
        work()
    except Exception as fault:
        return fault
    raise AssertionError("nothing went wrong")


def told(fault: BaseException, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command that raises this, and what it says."""

    def command() -> None:
        raise fault

    return exit_code(command), capfd.readouterr().err


def test_our_errors_are_their_own_words(capfd: pytest.CaptureFixture[str]) -> None:
    """A line each; the exit code is the error's."""
    assert told(StudyError("one\ntwo"), capfd) == (2, "paredown: one\nparedown: two\n")
    assert told(BudgetError("too little"), capfd) == (3, "paredown: too little\n")


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the folder for temporary files; where that cannot be written, the line says so."""
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        code, said = told(KeyError("model.layers.5"), capfd)
    (path,) = tmp_path.iterdir()
    assert code == 70
    assert (
        said
        == f"paredown: unexpected KeyError: 'model.layers.5'; this is a bug in paredown, please report it with {path}\n"
    )
    assert "raise fault" in path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
        code, said = told(AssertionError(), capfd)
    assert (code, said.count("\n")) == (70, 1)
    assert "please report it (its traceback could not be saved: No such file or directory)" in said


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        pytest.param(
            SafetensorError("Error while serializing: I/O error: Cannot allocate memory (os error 12)"),
            id="safetensors",
        ),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_too_little_memory_has_its_remedy(fault: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever noticed it."""
    assert told(fault, capfd) == (
        2,
        "paredown: not enough memory; set a smaller memory in the study file, give fewer --workers, "
        "or close other programs\n",
    )


def test_what_the_system_refuses_has_its_remedy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With the path where it is known; through libraries in Rust and through SQLite, too."""
    long = tmp_path / ("x" * 300)
    assert told(fault_of(long.exists), capfd) == (2, f"paredown: {long}: File name too long; give a shorter name\n")
    with small_disk(4096):
        full = [fault_of(lambda: (tmp_path / "a").write_bytes(bytes(8192)))]
        full.append(fault_of(lambda: save_file({"a": torch.zeros(4096)}, tmp_path / "b")))
    for fault in full:
        code, said = told(fault, capfd)
        assert (code, said.count("\n")) == (2, 1)
        assert "File too large; raise the limit on file sizes (ulimit -f), then run the same command again" in said
    broken = sqlite3.OperationalError("database or disk is full")
    broken.sqlite_errorcode = sqlite3.SQLITE_FULL
    code, said = told(broken, capfd)
    assert (code, said) == (
        2,
        "paredown: No space left on device; free some space, then run the same command again: it resumes\n",
    )
    engine = create_engine(f"sqlite:///{tmp_path}/no/study.db")
    fault = fault_of(lambda: engine.connect().execute(text("select 1")))
    assert told(fault, capfd)[0] == 2


def run(*arguments: object, limit: tuple[int, int] | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, under a limit of the system."""
    preexec = (lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))) if limit else None
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), check=False, preexec_fn=preexec
    )


@pytest.mark.parametrize("megabytes", [60, 400])
def test_a_limit_on_memory_is_told(megabytes: int, pico: Callable[[str], Path]) -> None:
    """At any of its imports and at work."""
    result = run("inspect", pico("llama"), limit=(resource.RLIMIT_AS, megabytes << 20))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "not enough memory" in result.stderr


def test_streams_that_are_closed_or_full_do_no_harm(tmp_path: Path) -> None:
    """What cannot be said is lost; results that cannot be written are a fault; a reader that has enough is none."""
    shell = " ".join(command("--help"))
    ends = {
        f"{shell} >/dev/full": (
            2,
            "paredown: No space left on device; free some space, then run the same command again: it resumes\n",
        ),
        f"{shell} >&- 2>&- <&-": (0, ""),
        f"{' '.join(command('status', tmp_path))} 2>/dev/full": (2, ""),
        f"{' '.join(command('status', tmp_path))} >&- 2>&-": (2, ""),
        f"set -o pipefail; {shell} | true": (141, ""),
    }
    for line, wanted in ends.items():
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment(), check=False)
        assert (result.returncode, result.stderr) == wanted, line
