"""Who proposes the next plan: one file a sampler; a new one is found by being here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optuna

from paredown.search.record import Record
from paredown.search.solver import Losses, Solver
from paredown.space.plan import Plan
from paredown.space.registry import Registry, import_folder
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a sampler is asked.

    Attributes:
        space: Sites and options.
        solver: Solves for budgets and losses.
        losses: Sensitivities.
        budget_bytes: What the result may weigh.
        seed: Every random number follows from it and the number of the trial.
        sequences: How many the search set has.
        focus: ``budget`` for all effort there, ``front`` for the whole front.
    """

    space: Space
    solver: Solver
    losses: Losses
    budget_bytes: int
    seed: int
    sequences: int = 1
    focus: str = "budget"

    @classmethod
    def of(cls, study: StudyFile, solver: Solver, losses: Losses, sequences: int) -> Question:
        """What a study asks."""
        space = solver.space
        budget = space.inventory.budget_bytes(study.budget)
        return cls(
            space=space,
            solver=solver,
            losses=losses,
            budget_bytes=budget,
            seed=study.seed,
            sequences=sequences,
            focus=study.focus,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plan to be measured next.

    Attributes:
        plan: The plan.
        label: For people.
        predicted_loss: What the sampler expects; None if it expects nothing.
        sequences: On how many of the search set it is measured, its rung; all by default.
        expected_gain: By how much the log loss of the best plan within the budget is expected to fall; None if nothing is expected, and
            of a plan that was proposed before.
    """

    plan: Plan
    label: str
    predicted_loss: float | None = None
    sequences: int | None = None
    expected_gain: float | None = None


class Sampler(Protocol):
    """Proposes plans; given the same trial number, history and failures it proposes the same plan, also in another process."""

    def propose(
        self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()
    ) -> Proposal:
        """The plan to measure next.

        Args:
            trial: The open trial; parameters may be suggested from it.
            history: All trials that were measured, by number; on lower rungs too (`Record.whole`).
            failed: Plans that could not be measured.
        """
        ...


@runtime_checkable
class Warm(Sampler, Protocol):
    """A sampler that reads parameters from the database: the plans that a study measures first must be entered there."""

    def seeded(self, trial: optuna.Trial, plan: Plan) -> None:
        """Enters the plan of an open trial."""
        ...


samplers: Registry[Callable[[Question], Sampler]] = Registry("sampler")

import_folder(__name__, list(__path__))
