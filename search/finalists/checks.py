"""Measurements on fresh texts that decide the winner; each starts only if it is expected to end in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from paredown.evaluators.quality import Quality
from paredown.search.finalists.pace import Measure, Measurement
from paredown.search.finalists.rebuild import Version
from paredown.search.outcome.decision import Refit
from paredown.search.trial import Trial
from paredown.search.trials.clock import Clock
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan

DRAWS = 3
"""Calibration draws that each plan is rebuilt from for the held-out comparison."""

IN_ORDER = Version(in_order=True)

Calibrated = Callable[[Plan], bool]
"""Whether the stored tensors of a plan depend on the calibration texts."""

Seconds = Callable[[Sequence[Measurement]], float]
"""Expected time of measurements [s]; those already made take none."""

Step = Callable[[str, int, int], None]
"""Progress callback: name of the step, units done, total units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A finalist on the selection set, in whichever version is better there.

    Attributes:
        quality: Quality of the better version.
        alone: Quality with each matrix compressed independently, as in the trials.
        refit: Losses of both versions; None for plans that do not depend on calibration texts.
    """

    quality: Quality
    alone: Quality
    refit: Refit | None


def on_selection(trial: Trial, calibrated: Calibrated) -> list[Measurement]:
    """The measurements of a finalist on the selection set."""
    versions = [Version(), IN_ORDER] if calibrated(trial.plan) else [Version()]
    return [(trial.plan, "selection", version) for version in versions]


def on_held_out(trials: Sequence[Trial], calibrated: Calibrated) -> list[Measurement]:
    """The most measurements that the held-out comparison of these plans can take."""
    found = []
    for trial in trials:
        versions = (
            [Version(in_order=True, draw=draw) for draw in range(DRAWS)] if calibrated(trial.plan) else [Version()]
        )
        found += [(trial.plan, "held-out", version) for version in versions]
    return found


class Checks:
    """Measures finalists within a time limit.

    Args:
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether the stored tensors of a plan depend on the calibration texts.
        step: Progress callback, called before each measurement.
        clock: Time limit of the run.
        seconds: Expected time of measurements [s].

    Attributes:
        is_selected: Whether every finalist was measured on the selection set in time.
        draws: Calibration draws measured for the held-out comparison.
        wanted: Calibration draws that a complete held-out comparison takes.
    """

    def __init__(self, measure: Measure, calibrated: Calibrated, step: Step, clock: Clock, seconds: Seconds) -> None:
        self.measure, self.calibrated, self.step, self.clock, self.seconds = measure, calibrated, step, clock, seconds
        self.is_selected = True
        self.draws, self.wanted = 0, 1

    def selection(self, trials: Sequence[Trial], guard: Sequence[Measurement]) -> dict[int, Selected]:
        """Selection results by trial number; a finalist whose predictions are not finite on fresh texts is left out.

        Args:
            trials: The finalists.
            guard: Measurements that time must be left for afterwards.
        """
        found: dict[int, Selected] = {}
        for done, trial in enumerate(trials):
            self.step("finalists on fresh texts", done, len(trials))
            asked = on_selection(trial, self.calibrated)
            if not self.clock.has(self.seconds([*asked, *guard])):
                self.is_selected = False
                break
            with suppress(EvaluationError, MemoryError):
                alone = self.measure(*asked[0])
                found[trial.number] = Selected(quality=alone, alone=alone, refit=None)
                if len(asked) > 1:
                    ordered = self.measure(*asked[1])
                    refit = Refit(alone=alone.mean, in_order=ordered.mean)
                    found[trial.number] = Selected(quality=ordered if refit.gains else alone, alone=alone, refit=refit)
        return found

    def held_out(self, trials: Sequence[Trial], refits: Mapping[int, Refit]) -> dict[int, list[Quality]]:
        """Quality of each plan for every calibration draw, by trial number.

        All plans have the same draws, so that comparisons are paired. A plan that fails on one draw is left out.
        """
        self.wanted = DRAWS if any(self.calibrated(trial.plan) for trial in trials) else 1
        found: dict[int, list[Quality]] = {trial.number: [] for trial in trials}
        for draw in range(self.wanted):  # outer loop, so that all plans share the original's inputs of a draw
            qualities = self._of_draw(trials, refits, draw)
            if qualities is None:
                break
            self.draws += 1
            for number, quality in qualities.items():
                found[number].append(quality)
        return {number: qualities for number, qualities in found.items() if len(qualities) == self.draws}

    def _of_draw(self, trials: Sequence[Trial], refits: Mapping[int, Refit], draw: int) -> dict[int, Quality] | None:
        """Quality under one calibration draw by trial number, without failed plans; None if time is too short."""
        asked: list[Measurement] = []
        for trial in trials:
            refit = refits.get(trial.number)
            version = Version(
                in_order=refit is not None and refit.gains, draw=draw if self.calibrated(trial.plan) else 0
            )
            asked.append((trial.plan, "held-out", version))
        found = {}
        for done, trial in enumerate(trials):
            self.step("held-out texts", draw * len(trials) + done, self.wanted * len(trials))
            if not self.clock.has(self.seconds(asked[done:])):
                return None
            with suppress(EvaluationError, MemoryError):
                found[trial.number] = self.measure(*asked[done])
        return found
