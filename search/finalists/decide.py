"""Choice of the winner: finalists on fresh texts, then the search's best against the uniform and the solver's plan."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from paredown.evaluators.comparison import interval, ratio
from paredown.evaluators.quality import Quality
from paredown.search.finalists.checks import Calibrated, Checks, Seconds, Step, on_held_out
from paredown.search.finalists.finalists import Finalists, distinct
from paredown.search.finalists.pace import Measure
from paredown.search.finalists.survival import by_sequence, comparison_with, survival_of
from paredown.search.outcome.decision import Comparison, Decision, Finding
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Trial
from paredown.search.trials.clock import Clock

UNSELECTED = (
    "no time was left to measure all finalists on fresh texts; "
    "the search set chose among them, and its losses are optimistic"
)
"""Warning for an outcome whose winner was not chosen on the selection set."""


Qualities = Mapping[int, Quality]
"""Quality of each finalist on the set that chooses among them, by trial number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The plans that the held-out set compares.

    Attributes:
        best: The search's best plan; None if no searched plan fits or could be measured.
        rival: The best uniform plan within the budget.
        solver: The solver's plan.
    """

    best: Trial | None
    rival: Trial | None
    solver: Trial | None

    @classmethod
    def of(cls, finalists: Finalists, qualities: Qualities, seed: int) -> Candidates:
        """Chooses among the finalists; the solver's plan stays the search's best unless another beats it."""

        def rank(trial: Trial) -> tuple[float, int, int]:
            return qualities[trial.number].mean, trial.size_bytes, trial.number

        def least(trials: Sequence[Trial]) -> Trial | None:
            return min((trial for trial in trials if trial.number in qualities), key=rank, default=None)

        best, solver = least(finalists.searched), least([finalists.solver] if finalists.solver else [])
        if best and solver and best != solver and not beats(best, solver, qualities, seed):
            best = solver
        return cls(best=best, rival=least(finalists.uniform), solver=solver)

    @property
    def trials(self) -> list[Trial]:
        """All candidates, each plan once."""
        return distinct([trial for trial in (self.best, self.rival, self.solver) if trial is not None])

    def within(self, numbers: Container[int]) -> Candidates:
        """The candidates whose trial number is among these."""
        best, rival, solver = (
            trial if trial and trial.number in numbers else None for trial in (self.best, self.rival, self.solver)
        )
        return Candidates(best=best, rival=rival, solver=solver)

    def comparisons(self, held_out: Mapping[int, Sequence[Quality]], seed: int) -> dict[str, Comparison]:
        """Held-out loss of the search's best over the ``uniform`` and the ``solver`` plan."""
        if self.best is None:
            return {}
        ours = held_out[self.best.number]
        return {
            name: comparison_with(other, ratio(ours, held_out[other.number], seed=seed))
            for name, other in {"uniform": self.rival, "solver": self.solver}.items()
            if other and other != self.best
        }

    def winner(self, comparisons: Mapping[str, Comparison], qualities: Qualities, seed: int) -> Trial | None:
        """The search's best if it beats its rival, on the held-out set or else where both were measured."""
        best, rival = self.best, self.rival
        if best is None or rival is None:
            return best or rival
        gains = comparisons["uniform"].high < 1 if comparisons else beats(best, rival, qualities, seed)
        return best if gains else rival


def beats(trial: Trial, other: Trial, qualities: Qualities, seed: int) -> bool:
    """Whether the 95 % interval of the ratio of two trials' losses lies below 1."""
    return ratio(qualities[trial.number], qualities[other.number], seed=seed).high < 1


def decide(
    outcome: Outcome,
    measure: Measure,
    calibrated: Calibrated,
    step: Step,
    clock: Clock = Clock(),  # noqa: B008 - a frozen value
    seconds: Seconds = lambda measurements: 0.0,
) -> Decision:
    """The winner with the measurements that chose it; without a winner if no trial fits the budget.

    The selection set decides whether each finalist is compressed in order. It then chooses the search's best plan and
    its rival, the best uniform plan within the budget. A plan found by the trials replaces the solver's plan only if
    the 95 % interval of their loss ratio lies below 1, since the best of many trials is partly luck (winner's curse).
    The held-out set compares the search's best with its rival, each rebuilt from several calibration draws. The rival
    wins unless the interval of the ratio lies below 1.

    Under a time limit, a measurement starts only if it is expected to end in time, and the selection set is read only
    if time is left for the held-out comparison. If time is too short for all finalists, the search set chooses among
    them. If it is too short for all draws of the held-out comparison, the plan is marked as unguarded. The draws that
    were measured count; without any, the rival must be beaten on the set that chose.

    Args:
        outcome: Outcome of a search whose trials are done.
        measure: Measures a version of a plan on the ``selection`` and ``held-out`` sets.
        calibrated: Whether the stored tensors of a plan depend on the calibration texts.
        step: Progress callback, called before each measurement.
        clock: Time limit of the run.
        seconds: Expected time of measurements [s].
    """
    finalists, checks = Finalists.of(outcome), Checks(measure, calibrated, step, clock, seconds)
    seed = outcome.question.seed
    first = distinct([*finalists.compared, *finalists.trials])  # first those that the held-out comparison needs
    selection = checks.selection(first, on_held_out(finalists.compared, calibrated))
    qualities = {number: each.quality for number, each in selection.items()}
    if not checks.is_selected:
        qualities = {trial.number: by_sequence(trial) for trial in finalists.trials}
    refits = {number: each.refit for number, each in selection.items() if each.refit}
    compared = Candidates.of(finalists, qualities, seed)
    held_out = checks.held_out(compared.trials, refits)
    chosen = compared.within(held_out) if checks.draws else compared
    comparisons = chosen.comparisons(held_out, seed) if checks.draws else {}
    winner = chosen.winner(comparisons, qualities, seed)
    return Decision(
        selection={number: _finding([each.quality]) for number, each in selection.items()},
        unselected="" if checks.is_selected else UNSELECTED,
        refits=refits,
        survival=survival_of(finalists, selection, seed),
        held_out={number: _finding(by_draw) for number, by_draw in held_out.items()} if checks.draws else {},
        unguarded=_unguarded(checks) if compared.trials else "",
        winner=winner.number if winner else None,
        searched=chosen.best.number if chosen.best else None,
        uniform=chosen.rival.number if chosen.rival else None,
        comparisons=comparisons,
    )


def _unguarded(checks: Checks) -> str:
    """What is missing from the held-out comparison, in words; empty if it is complete."""
    if checks.draws == checks.wanted:
        return ""
    if checks.draws:
        return f"time allowed only {checks.draws} of the {checks.wanted} calibration draws of the held-out comparison"
    return "no time was left for the held-out comparison with the best uniform plan"


def _finding(qualities: Sequence[Quality]) -> Finding:
    """Loss under the first draw, whose plan is written, with an interval over documents and calibration draws."""
    low, high = interval(qualities)
    first = qualities[0]
    return Finding(
        mean=first.mean,
        low=min(low, first.mean),
        high=max(high, first.mean),
        documents=len(first.totals),
        perplexity=first.perplexity,
        draws=len(qualities),
    )
