"""The measurements on fresh texts that choose the winner, each begun only if it can end in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from paredown.evaluators.quality import Quality
from paredown.search.clock import Clock
from paredown.search.outcome import Refit
from paredown.search.pace import Measure, Measurement
from paredown.search.rebuild import Version
from paredown.search.record import Record
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

DRAWS = 3
"""Calibration draws that each plan is rebuilt from for the held-out comparison."""

IN_ORDER = Version(in_order=True)

Calibrated = Callable[[Plan], bool]
"""Whether what a plan stores depends on calibration texts."""

Seconds = Callable[[Sequence[Measurement]], float]
"""What measurements are expected to take [s]; nothing if they were made before."""

Step = Callable[[str, int, int], None]
"""Who is told of a step: its name, how much is done, of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A finalist on the selection set, in the version that is better there.

    Attributes:
        quality: Of that version.
        alone: Its matrices compressed each for itself, as the trials had it.
        refit: What compressing in order brought; None for plans that no text calibrates.
    """

    quality: Quality
    alone: Quality
    refit: Refit | None


def on_selection(record: Record, calibrated: Calibrated) -> list[Measurement]:
    """What is measured of a finalist on the selection set."""
    versions = [Version(), IN_ORDER] if calibrated(record.plan) else [Version()]
    return [(record.plan, "selection", version) for version in versions]


def on_held_out(records: Sequence[Record], calibrated: Calibrated) -> list[Measurement]:
    """What the held-out comparison of these plans measures at most."""
    found = []
    for record in records:
        versions = (
            [Version(in_order=True, draw=draw) for draw in range(DRAWS)] if calibrated(record.plan) else [Version()]
        )
        found += [(record.plan, "held-out", version) for version in versions]
    return found


class Checks:
    """Measures finalists within a limit.

    Args:
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether what a plan stores depends on calibration texts.
        step: Is told before each measurement.
        clock: The limit of the run.
        seconds: What measurements are expected to take.

    Attributes:
        is_selected: Whether the time was enough for every finalist on the selection set.
        draws: Draws of the held-out comparison that were measured.
        wanted: Draws that it takes.
    """

    def __init__(self, measure: Measure, calibrated: Calibrated, step: Step, clock: Clock, seconds: Seconds) -> None:
        self.measure, self.calibrated, self.step, self.clock, self.seconds = measure, calibrated, step, clock, seconds
        self.is_selected = True
        self.draws, self.wanted = 0, 1

    def selection(self, records: Sequence[Record], guard: Sequence[Measurement]) -> dict[int, Selected]:
        """Each finalist by number of the trial; what is not finite on fresh texts cannot win.

        Args:
            records: The finalists.
            guard: Measurements that must be possible afterwards.
        """
        found: dict[int, Selected] = {}
        for done, record in enumerate(records):
            self.step("finalists on fresh texts", done, len(records))
            asked = on_selection(record, self.calibrated)
            if not self.clock.has(self.seconds([*asked, *guard])):
                self.is_selected = False
                break
            with suppress(EvaluationError, MemoryError):
                alone = self.measure(*asked[0])
                found[record.number] = Selected(quality=alone, alone=alone, refit=None)
                if len(asked) > 1:
                    ordered = self.measure(*asked[1])
                    refit = Refit(alone=alone.mean, in_order=ordered.mean)
                    found[record.number] = Selected(quality=ordered if refit.gains else alone, alone=alone, refit=refit)
        return found

    def held_out(self, records: Sequence[Record], refits: Mapping[int, Refit]) -> dict[int, list[Quality]]:
        """The quality of each for every draw of the calibration texts; as many for each, so that draws are paired."""
        self.wanted = DRAWS if any(self.calibrated(record.plan) for record in records) else 1
        found: dict[int, list[Quality]] = {record.number: [] for record in records}
        for draw in range(self.wanted):  # the inputs of one draw serve all its plans
            qualities = self._of_draw(records, refits, draw)
            if qualities is None:
                break
            self.draws += 1
            for number, quality in qualities.items():
                found[number].append(quality)
        return {number: qualities for number, qualities in found.items() if len(qualities) == self.draws}

    def _of_draw(self, records: Sequence[Record], refits: Mapping[int, Refit], draw: int) -> dict[int, Quality] | None:
        """By number of the trial, without what is not finite; None where the time was too short."""
        asked: list[Measurement] = []
        for record in records:
            refit = refits.get(record.number)
            version = Version(
                in_order=refit is not None and refit.gains, draw=draw if self.calibrated(record.plan) else 0
            )
            asked.append((record.plan, "held-out", version))
        found = {}
        for done, record in enumerate(records):
            self.step("held-out texts", draw * len(records) + done, self.wanted * len(records))
            if not self.clock.has(self.seconds(asked[done:])):
                return None
            with suppress(EvaluationError, MemoryError):
                found[record.number] = self.measure(*asked[done])
        return found
