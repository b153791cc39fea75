"""The wish to stop: a flag that signals set, and that long work looks at where it can stop safely."""

from __future__ import annotations

_asked = False


class Stopped(BaseException):
    """A stop was asked for; raised at a safe point of the work, never inside a library."""


def ask_to_stop() -> None:
    """Sets the flag; may be called from a signal handler and from any thread."""
    global _asked
    _asked = True


def stop_if_asked() -> None:
    """A safe point: every loop of a long step calls this. Does nothing until a stop is asked for.

    Raises:
        Stopped: If it was.
    """
    if _asked:
        raise Stopped
