"""Ctrl+C, SIGTERM and SIGHUP: the work stops at its next safe point; where that takes too long, the process ends without it.

Nothing finished is lost either way: files are written beside, and renamed. Importing this imports nothing heavy.
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

from paredown.space.interruption import ask_to_stop

GRACE_SECONDS = 3.0
"""From the first signal to the end of the process, whatever it is doing then."""

STOPPED = 130
"""The exit code."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_best: Path | None = None
_ending = threading.Lock()


def listen() -> None:
    """From now on the first signal asks the work to stop, and a second one ends the process at once."""
    reading, writing = os.pipe()  # never closed: a signal may come as long as the process lives
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _asked)
    threading.Thread(target=_watch, args=[reading], daemon=True).start()


def deafen() -> None:
    """From now on signals change nothing: all is done, the process is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def name_best(plan: Path) -> None:
    """The plan file that is named when the work stops, if it is there by then."""
    global _best
    _best = plan


def last_words() -> str:
    """What is said when the work stops, in one line."""
    again = f"to go on: {shlex.join(['paredown', *sys.argv[1:]])}"
    if _best is None:
        return f"stopped; {again}"
    return (
        f"stopped; the best so far is {_best}; {again}"
        if os.path.isfile(_best)
        else f"stopped before the first trial; {again}"
    )


def end(*, abruptly: bool = False) -> NoReturn:
    """Says the last words and ends the process, without the clean-up of libraries, which takes seconds and may talk.

    Args:
        abruptly: Whether something else may still be writing to the terminal.
    """
    if _ending.acquire(timeout=1.0):  # one of two threads speaks; the other waits for the end
        begin = "\r\n\x1b[?25h" if abruptly and os.isatty(2) else ""  # below a bar, and with the cursor that it hid
        with suppress(OSError):
            os.write(2, f"{begin}{last_words()}\n".encode())
    os._exit(STOPPED)


def _asked(number: int, frame: FrameType | None) -> None:
    ask_to_stop()


def _watch(reading: int) -> None:
    """Reads what the system's own handler writes, whatever the main thread does; needs only the interpreter's lock."""
    while os.read(reading, 1)[0] not in SIGNALS:
        pass
    ask_to_stop()
    select.select([reading], [], [], GRACE_SECONDS)
    end(abruptly=True)
