"""Stop requests: a flag that signals set, and that long work checks where it can stop safely."""

from __future__ import annotations

_asked = False


class Stopped(BaseException):
    """Raised after a stop request, at a safe point of the work and never inside a library."""


def ask_to_stop() -> None:
    """Requests a stop. Safe to call from a signal handler and from any thread."""
    global _asked
    _asked = True


def stop_if_asked() -> None:
    """Marks a safe point; every loop of a long step calls it. Does nothing until a stop is requested.

    Raises:
        Stopped: If a stop was requested.
    """
    if _asked:
        raise Stopped
