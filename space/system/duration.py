"""Durations as people write them: ``45m``, ``1h30m``, ``90s`` or a number of seconds."""

from __future__ import annotations

import math
import re

from paredown.space.errors import StudyError

_NUMBER = r"[0-9]*\.?[0-9]+"
_PARTS = re.compile(rf"(?:({_NUMBER})\s*h)?\s*(?:({_NUMBER})\s*m(?:in)?)?\s*(?:({_NUMBER})\s*s)?", re.IGNORECASE)


def parse_duration(text: str | float) -> float:
    """Duration that a text such as ``1h30m`` gives [s].

    Raises:
        StudyError: If the text has no such form, or the duration is not finite and above zero.
    """
    written = str(text).strip()
    match = _PARTS.fullmatch(f"{written}s" if re.fullmatch(_NUMBER, written) else written)
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total < math.inf:
        raise StudyError(f"expected a duration such as 45m, 1h30m or 90s, or a number of seconds, got {str(text)!r}")
    return total


def duration_text(seconds: float) -> str:
    """Text of a duration, as `parse_duration` reads it: ``1h30m``, ``45m``, ``1m30s``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest:.9g}s" if rest else ""]
    return "".join(parts)
