"""Samplers, which propose the next plan to measure. Each file of this folder registers its samplers on import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optuna

from paredown.search.solver.solver import Losses, Solver
from paredown.search.trial import Trial
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.system.registry import Registry, import_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The problem that a sampler works on.

    Attributes:
        space: Sites and options.
        solver: Solver for plans of least predicted loss.
        losses: Sensitivities.
        budget_bytes: Most bytes of the resulting plan.
        seed: Seed; all random numbers derive from it and the trial's number.
        sequences: Number of sequences in the search set.
        focus: ``budget`` to spend all effort at the budget, ``front`` to spread it along the whole front.
    """

    space: Space
    solver: Solver
    losses: Losses
    budget_bytes: int
    seed: int
    sequences: int = 1
    focus: str = "budget"

    @classmethod
    def of(cls, study_file: StudyFile, solver: Solver, losses: Losses, sequences: int) -> Problem:
        """The problem of a study file."""
        space = solver.space
        budget = space.inventory.budget_bytes(study_file.budget)
        return cls(
            space=space,
            solver=solver,
            losses=losses,
            budget_bytes=budget,
            seed=study_file.seed,
            sequences=sequences,
            focus=study_file.focus,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plan to measure next.

    Attributes:
        plan: The plan.
        label: Origin of the plan in words, for reports.
        predicted_loss: Loss that the sampler predicts; None if it predicts none.
        sequences: Rung of the measurement: number of sequences of the search set; None for all.
        expected_gain: Expected fall of the log loss of the best plan within the budget; None if the sampler predicts
            none, or proposed the plan before.
    """

    plan: Plan
    label: str
    predicted_loss: float | None = None
    sequences: int | None = None
    expected_gain: float | None = None


class Sampler(Protocol):
    """Proposes plans. The same trial number, history and failures give the same plan, also in another process."""

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """The plan to measure next.

        Args:
            trial: The open Optuna trial; parameters may be suggested from it.
            history: All measured trials by number, including those on lower rungs (`Trial.read`).
            failed: Plans whose measurement failed.
        """
        ...


@runtime_checkable
class Warm(Sampler, Protocol):
    """A sampler that reads parameters from the trial database, where a study must enter the plans it measures first."""

    def seeded(self, trial: optuna.Trial, plan: Plan) -> None:
        """Enters the parameters of a plan into an open trial."""
        ...


samplers: Registry[Callable[[Problem], Sampler]] = Registry("sampler", group="paredown.samplers", entry=Callable)

import_folder(__name__, list(__path__))
