"""First and last steps of a command: signal handlers before any heavy import, and an exit code for every end."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paredown import signals
from paredown.space.system.interruption import Stopped, stop_if_asked

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not occupy a busy machine
}
"""Environment variables that are set unless the environment already has them."""

BROKEN_PIPE = 141
"""Exit code if the reader of standard output closed the pipe."""


def main() -> None:
    """The entry point."""
    open_standard_streams()  # first, so that the pipe of the next line does not become one of them
    signals.listen()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # warnings of libraries are for their developers
    try:
        code = exit_code(_command)
    except Stopped:
        with suppress(OSError):
            sys.stdout.flush()
        signals.end()
    signals.deafen()
    sys.exit(code)


def exit_code(command: Callable[[], object]) -> int:
    """Runs a command and prints its error, if any; the exit code of the process (`faults` has the codes of errors).

    Raises:
        Stopped: If a stop was requested.
    """
    from paredown.faults import code_of, lines_of  # now: after memory runs out, nothing can be imported

    try:
        command()
        sys.stdout.flush()
        return 0
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer turns it into an exit
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter would flush again, and complain
        return code_of(fault)


def broken_pipe() -> int:
    """Exit code if the reader of standard output, such as ``| head``, has read enough; discards further output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return BROKEN_PIPE


def note(text: str) -> None:
    """Prints a line on standard error, so that standard output holds only results."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Replaces closed standard streams with the null device, and standard error with a stream that never fails."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:  # else the next opened file would become a standard stream
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Forgiving(1, "w", closefd=False)), line_buffering=True)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(2, "w", closefd=False)), errors="backslashreplace", line_buffering=True
    )


class _Forgiving(io.FileIO):
    """Raw file that discards what cannot be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def _command() -> None:
    from paredown.cli.commands import app

    stop_if_asked()
    app()
