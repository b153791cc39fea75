"""SIGINT, SIGTERM and SIGHUP: work stops at its next safe point, or the process ends if that takes too long.

Finished work is never lost, because files are replaced atomically. This module imports nothing heavy.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from paredown.space.system.interruption import ask_to_stop

GRACE_SECONDS = 3.0
"""Longest time from the first signal to the end of the process [s]."""

STOPPED = 130
"""Exit code after a signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

RESUMABLE = {"search", "demo", "transfer", "apply"}
"""Commands that find again what they finished."""

_best: Path | None = None
_ending = threading.Lock()


def listen() -> None:
    """Installs the handlers: the first signal requests a stop, and a second one ends the process at once."""
    reading, writing = os.pipe()  # never closed: a signal may come until the process ends
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _asked)
    threading.Thread(target=_watch, args=[reading], daemon=True).start()


def deafen() -> None:
    """Ignores signals from now on: the work is done, and the process is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def name_best(plan: Path) -> None:
    """Sets the plan file that `last_words` names, if it exists by then."""
    global _best
    _best = plan


def last_words() -> str:
    """The line that is printed when the work stops."""
    resumes = bool(RESUMABLE.intersection(sys.argv[1:2])) and "--dry-run" not in sys.argv
    again = f"to {'resume' if resumes else 'run it again'}: {shlex.join(['paredown', *sys.argv[1:]])}"
    if _best is None:
        return f"stopped; {again}"
    return (
        f"stopped; the best plan so far is {_best}; {again}"
        if os.path.isfile(_best)
        else f"stopped before the first trial; {again}"
    )


def end(*, abruptly: bool = False) -> NoReturn:
    """Prints the last words and ends the process, without the clean-up of libraries, which takes seconds and may print.

    Args:
        abruptly: Whether something else may still be writing to the terminal.
    """
    if _ending.acquire(timeout=1.0):  # only one of two threads prints; the other waits for the end
        begin = "\r\n\x1b[?25h" if abruptly and os.isatty(2) else ""  # below the bar, with the cursor that it hid
        with suppress(OSError):
            os.write(2, f"{begin}{last_words()}\n".encode())
    os._exit(STOPPED)


def _asked(number: int, frame: FrameType | None) -> None:
    ask_to_stop()


def _watch(reading: int) -> None:
    """Reads the signals from the wakeup pipe while the main thread is busy; needs only the interpreter's lock."""
    while os.read(reading, 1)[0] not in SIGNALS:
        pass
    ask_to_stop()
    select.select([reading], [], [], GRACE_SECONDS)
    end(abruptly=True)
