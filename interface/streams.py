"""The standard streams of a command: open, never failing, results on one and everything else on the other."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

BROKEN_PIPE = 141
"""Exit code if the reader of standard output closed the pipe."""


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
