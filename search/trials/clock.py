"""The time limit of a run."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from paredown.space.study_file import StudyFile

IMPORTED = time.monotonic()
"""When this module was imported, on the clock of `time.monotonic` [s]."""


class OutOfTime(Exception):
    """The time limit of a run is reached; all finished work is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time limit of a run; both times are on the clock of `time.monotonic`.

    Attributes:
        ends: Deadline [s]; infinite if there is no limit.
        began: Start of the run [s].
    """

    ends: float = math.inf
    began: float = 0.0

    @classmethod
    def of(cls, study_file: StudyFile, began: float) -> Clock:
        """The clock of a study, with the earlier of its two limits (``timeout``, ``until``).

        Args:
            study_file: The study.
            began: Start of the run, on the clock of `time.monotonic` [s].
        """
        ends = [math.inf]
        if study_file.timeout is not None:
            ends.append(began + study_file.timeout)
        if study_file.until is not None:
            ends.append(time.monotonic() + seconds_until(study_file.until, datetime.now()))
        return cls(ends=min(ends), began=began)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self.ends)

    def left(self) -> float:
        """Seconds to the limit; negative beyond it."""
        return self.ends - time.monotonic()

    def has(self, seconds: float) -> bool:
        """Whether work of this many seconds would end in time."""
        return seconds <= self.left()

    def check(self) -> None:
        """Raises if the limit is reached.

        Raises:
            OutOfTime: If no time is left.
        """
        if self.left() <= 0:
            raise OutOfTime


def seconds_until(clock: str, now: datetime) -> float:
    """Seconds from ``now`` until the clock next shows ``HH:MM``."""
    hours, minutes = map(int, clock.split(":"))
    then = now.replace(hour=hours, minute=minutes, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return (then - now).total_seconds()


def process_began() -> float:
    """Start of this process, on the clock of `time.monotonic` [s]; import time of this module if unknown."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return IMPORTED
    return min(time.monotonic() - age, IMPORTED)
