"""The command's first and last steps: signals are listened to before anything heavy is imported, and every end has an exit code."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paredown import signals
from paredown.space.interruption import Stopped, stop_if_asked

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for a busy machine must not keep it busy
}
"""Set in the environment where it says nothing of them."""

BROKEN_PIPE = 141


def main() -> None:
    """The entry point."""
    open_standard_streams()  # first, or the pipe of the next line would be taken for one of them
    signals.listen()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries tell their developers
    try:
        code = exit_code(_command)
    except Stopped:
        with suppress(OSError):
            sys.stdout.flush()
        signals.end()
    signals.deafen()
    sys.exit(code)


def exit_code(command: Callable[[], object]) -> int:
    """Runs a command; what the process exits with (`faults` has the codes of what went wrong).

    Raises:
        Stopped: If a stop was asked for.
    """
    from paredown.faults import code_of, lines_of  # now: where memory has run out, nothing can be imported

    try:
        command()
        sys.stdout.flush()
        return 0
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer makes an exit of it
            return broken_pipe()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        return broken_pipe()
    except Exception as fault:
        for line in lines_of(fault):
            note(f"paredown: {line}")
        with suppress(OSError):
            sys.stdout.flush()
            return code_of(fault)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter would try, and complain, once more
        return code_of(fault)


def broken_pipe() -> int:
    """The exit code where the reader of standard output, `| head` say, has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return BROKEN_PIPE


def note(text: str) -> None:
    """A line for the person, on standard error, so that standard output holds results only."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Standard streams that were closed lead nowhere; standard error never fails, be it closed, full or without a reader."""
    while (
        number := os.open(os.devnull, os.O_RDWR)
    ) < 3:  # else the next file that is opened would be taken for one of them
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Forgiving(1, "w", closefd=False)), line_buffering=True)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(2, "w", closefd=False)), errors="backslashreplace", line_buffering=True
    )


class _Forgiving(io.FileIO):
    """What cannot be written is lost."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _command() -> None:
    from paredown.cli import app

    stop_if_asked()
    app()
