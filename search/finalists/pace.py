"""Pace of measurements in this run, learned from those already made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from paredown.evaluators.quality import Quality
from paredown.search.finalists.rebuild import Version
from paredown.space.plan import Plan

Measurement = tuple[Plan, str, Version]
"""A plan, the name of a set, and a version of the plan."""

Measure = Callable[[Plan, str, Version], Quality]
"""Makes a measurement."""

REBUILT_PASSES = 10.0
"""Assumed time to rebuild a plan, in forward passes over the calibration texts, until one rebuild was timed."""


class Pace:
    """Seconds per token of a forward pass, per rebuilt plan and per report, on this machine at its current load.

    Args:
        tokens: Tokens of each set, by name, ``calibration`` included.

    Attributes:
        closing: Longest time that reports and plans took to write [s].
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens
        self.closing = 0.0
        self.made: set[Measurement] = set()
        self._opened: set[str] = set()
        self._read = self._seconds = 0.0
        self._rebuilt: list[float] = []

    def read(self, tokens: float, seconds: float) -> None:
        """Adds the time of a forward pass over this many tokens."""
        self._read += tokens
        self._seconds += seconds

    def rebuilt(self, seconds: float) -> None:
        """Adds the time of one rebuilt plan."""
        self._rebuilt.append(seconds)

    def published(self, seconds: float) -> None:
        """Adds the time to write reports and plans once."""
        self.closing = max(self.closing, seconds)

    def timed(self, measure: Measure) -> Measure:
        """The same function; each call updates the pace."""

        def measured(plan: Plan, name: str, version: Version) -> Quality:
            passes = self._passes([(plan, name, version)])
            started = time.monotonic()
            self.made.add((plan, name, version))  # also if its predictions turn out not finite
            quality = measure(plan, name, version)
            seconds = time.monotonic() - started
            if _is_rebuilt(version):
                self.rebuilt(max(seconds - self.forward(passes), 0.0))
            else:
                self.read(passes, seconds)
            self._opened.add(name)
            return quality

        return measured

    def forward(self, tokens: float) -> float:
        """Seconds of forward passes over this many tokens; 0 before the first was timed."""
        return tokens * self._seconds / self._read if self._read else 0.0

    def seconds(self, measurements: Sequence[Measurement]) -> float:
        """Seconds that the remaining measurements take; those already made count as nothing."""
        left = [each for each in dict.fromkeys(measurements) if each not in self.made]
        rebuilt = sum(_is_rebuilt(version) for _, _, version in left)
        return self.forward(self._passes(left)) + rebuilt * self._rebuilding

    @property
    def _rebuilding(self) -> float:
        """Seconds to rebuild a plan: the longest of the last three, since plans differ in what must be compressed."""
        return max(self._rebuilt[-3:]) if self._rebuilt else REBUILT_PASSES * self.forward(self.tokens["calibration"])

    def _passes(self, measurements: Sequence[Measurement]) -> float:
        """Tokens to read; the original reads each set once more when the set is first opened."""
        names = [name for _, name, _ in measurements]
        return math.fsum(self.tokens[name] for name in [*names, *({*names} - self._opened)])


def _is_rebuilt(version: Version) -> bool:
    return version.in_order or version.draw > 0
