"""How much time a run has left."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from paredown.space.study_file import StudyFile

IMPORTED = time.monotonic()


class OutOfTime(Exception):
    """The limit of a run is reached; what was finished is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The limit of a run.

    Attributes:
        ends: When, as `time.monotonic` counts [s]; infinite without a limit.
        began: When the run began.
    """

    ends: float = math.inf
    began: float = 0.0

    @classmethod
    def of(cls, question: StudyFile, began: float) -> Clock:
        """The earlier of a study's limits.

        Args:
            question: The study.
            began: When the run began, as `time.monotonic` counts [s].
        """
        ends = [math.inf]
        if question.timeout is not None:
            ends.append(began + question.timeout)
        if question.until is not None:
            ends.append(time.monotonic() + seconds_until(question.until, datetime.now()))
        return cls(ends=min(ends), began=began)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self.ends)

    def left(self) -> float:
        """Seconds to the limit; negative beyond it."""
        return self.ends - time.monotonic()

    def has(self, seconds: float) -> bool:
        """Whether what takes so long ends in time."""
        return seconds <= self.left()

    def check(self) -> None:
        """Ends the step at the limit.

        Raises:
            OutOfTime: If no time is left.
        """
        if self.left() <= 0:
            raise OutOfTime


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from now until the next time that the clock shows ``HH:MM``."""
    hours, minutes = map(int, clock.split(":"))
    then = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return (then - now).total_seconds()


def process_began() -> float:
    """When this process began, as `time.monotonic` counts [s]; when this was imported, where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return IMPORTED
    return min(time.monotonic() - age, IMPORTED)
