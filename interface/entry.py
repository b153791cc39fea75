"""First and last steps of a command: signal handlers before any heavy import, and an exit code for every end."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress

from paredown import signals
from paredown.space.system.interruption import Stopped, stop_if_asked
from paredown.streams import broken_pipe, note, open_standard_streams

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not occupy a busy machine
}
"""Environment variables that are set unless the environment already has them."""


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


def _command() -> None:
    from paredown.cli.commands import app

    stop_if_asked()
    app()
