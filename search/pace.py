"""What measurements take in this run, learnt from those that were made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from paredown.evaluators.quality import Quality
from paredown.search.rebuild import Version
from paredown.space.plan import Plan

Measurement = tuple[Plan, str, Version]
"""A version of a plan on a set, by name."""

Measure = Callable[[Plan, str, Version], Quality]
"""Makes a measurement."""

REBUILT_PASSES = 10.0
"""What a plan compressed again takes beside its measurement, in forward passes over the calibration texts, until one was timed."""


class Pace:
    """Seconds per token of a forward pass and per plan compressed again, on this machine, as busy as it is.

    Args:
        tokens: Of each set, by name; ``calibration`` too.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens
        self.made: set[Measurement] = set()
        self._opened: set[str] = set()
        self._read = self._seconds = 0.0
        self._rebuilt: list[float] = []

    def read(self, tokens: float, seconds: float) -> None:
        """Learns from a forward pass."""
        self._read += tokens
        self._seconds += seconds

    def rebuilt(self, seconds: float) -> None:
        """Learns from a plan that was compressed again."""
        self._rebuilt.append(seconds)

    def timed(self, measure: Measure) -> Measure:
        """The measure; each call is learnt from."""

        def measured(plan: Plan, name: str, version: Version) -> Quality:
            passes = self._passes([(plan, name, version)])
            started = time.monotonic()
            self.made.add((plan, name, version))  # also where its predictions are not finite
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
        """Seconds of forward passes; 0 before the first was timed."""
        return tokens * self._seconds / self._read if self._read else 0.0

    def seconds(self, measurements: Sequence[Measurement]) -> float:
        """What is left of measurements takes; those that were made already take nothing."""
        left = [each for each in dict.fromkeys(measurements) if each not in self.made]
        rebuilt = sum(_is_rebuilt(version) for _, _, version in left)
        return self.forward(self._passes(left)) + rebuilt * self._rebuilding

    @property
    def _rebuilding(self) -> float:
        """The longest of the last few: a plan may have more to compress than another."""
        return max(self._rebuilt[-3:]) if self._rebuilt else REBUILT_PASSES * self.forward(self.tokens["calibration"])

    def _passes(self, measurements: Sequence[Measurement]) -> float:
        """Tokens that are read; each set once more by the original, when it is first opened."""
        names = [name for _, name, _ in measurements]
        return math.fsum(self.tokens[name] for name in [*names, *({*names} - self._opened)])


def _is_rebuilt(version: Version) -> bool:
    return version.in_order or version.draw > 0
