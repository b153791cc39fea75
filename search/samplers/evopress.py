"""EvoPress: evolution at one budget by level switches, with offspring selected on growing parts of the search set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna

from paredown.search.samplers import Problem, Proposal, samplers
from paredown.search.samplers.by_level.levels import Integers, Levels
from paredown.search.samplers.by_level.loss_history import Measured
from paredown.search.samplers.by_level.mutation import Mutation
from paredown.search.trial import Trial
from paredown.space.plan import Plan

OFFSPRING = 16
"""Offspring per generation."""

SHARES = (1 / 8, 1 / 2, 1)
"""Fraction of the search set that each step of the selection measures on."""

SURVIVORS = (4, 2, 1)
"""Plans that survive each step of the selection."""

TRIES = 50
"""Mutations tried per offspring before a generation stays smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A parent with its offspring.

    Attributes:
        number: Index from 0. Generation 0 of a uniform start has near-uniform plans in place of offspring.
        parent: The parent; None in generation 0 if no measured uniform plan fits.
        offspring: Plans that no earlier generation contained.
    """

    number: int
    parent: Plan | None
    offspring: tuple[Plan, ...]


class EvoPressSampler:
    """A (1 + lambda) evolution: the best of a parent and its offspring is the next parent.

    Each of the offspring is the parent with one to three levels raised and others lowered until the budget holds
    (`Mutation`). All offspring are measured on an eighth of the search set, the best four on half of it, and the best
    two on all of it, where they compete with the parent.

    As in the source:

    - the algorithm: 1 + lambda, level switches, their number, selection in steps, elitism in the last step;
    - the start at the uniform level, rounded up and lowered at random sites to use the remaining bytes;
    - drop switches.

    Changed in its favour:

    - the steps are nested and the same in each generation, so nothing is measured twice (source: fresh tokens each
      time);
    - plans that were offspring before are not tried again;
    - levels are the choices of a site that are undominated in bytes and predicted loss, so one step never leads to a
      worse choice of another technique;
    - a mutation may also drop or restore a site, since a byte budget does not fix the number of drops;
    - 16 offspring on 1/8, 1/2 and all of the search set, instead of 128 on 1/64, 1/8 and all of its 131,072 tokens.

    Args:
        start: The first parent: ``uniform`` or ``solver``.
        problem: The problem to work on.

    Source:
        Sieberling, Kuznedelev, Kurtic, Alistarh, 2025, "EvoPress: Accurate Dynamic Model Compression via Evolutionary
        Search", ICML, arXiv:2410.14649, Algorithm 1; github.com/IST-DASLab/EvoPress: evo_quant_search.py
        (``--group_rule none``), evo_drop_quant_search.py, scripts/run_quant_search.sh.
    """

    def __init__(self, start: str, problem: Problem) -> None:
        self.problem, self.start = problem, start
        self.levels = Levels(problem.space, problem.losses)
        self.mutation = Mutation(self.levels, problem.budget_bytes)
        rungs = [math.ceil(problem.sequences * share) for share in SHARES]
        self.steps = dict(zip(rungs, SURVIVORS, strict=True))  # for equal rungs the last one holds
        self._restart()

    def _restart(self) -> None:
        self._measured = Measured()
        self._tried: set[Plan] = set()
        self._generation: Generation | None = None

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """The next plan that the current generation needs measured, and its rung.

        Finished generations are replayed only if the history does not extend the one of the previous call.
        """
        if not self._measured.grows_to(history, failed):
            self._restart()
        self._measured.add(history, failed)
        generation = self._generation or self._first(history)
        while generation.offspring or not generation.number:
            chosen, rung = self._selected(generation)
            if rung:
                self._generation = generation
                return Proposal(
                    plan=chosen,
                    label=f"generation {generation.number}",
                    sequences=None if self._is_whole(rung) else rung,
                )
            generation = self._next(generation.number + 1, chosen)
        self._generation = generation
        return Proposal(plan=generation.parent or self.problem.solver.smallest(), label="nothing new to try")

    def _is_whole(self, rung: int) -> bool:
        return rung >= self.problem.sequences

    def _selected(self, generation: Generation) -> tuple[Plan, int]:
        """A plan that still has to be measured and its rung [sequences]; once all are, the next parent and 0."""
        candidates = list(generation.offspring)
        for rung, survivors in self.steps.items():
            whole = self._is_whole(rung)
            if whole and generation.parent is not None:
                candidates.append(generation.parent)
            losses = []
            for plan in candidates:
                loss = self._measured.loss(plan, None if whole else rung)
                if loss is None:
                    return plan, rung
                losses.append(loss)
            order = np.argsort(losses, kind="stable")[:survivors]
            candidates = [candidates[place] for place in order]
        return candidates[0], 0

    def _first(self, history: Sequence[Trial]) -> Generation:
        """Generation 0.

        A ``solver`` start has the solver's plan as parent. A ``uniform`` start has the best measured uniform plan as
        parent, and offspring that are uniform except for sites lowered to fit the budget.
        """
        problem = self.problem
        if self.start == "solver":
            return self._next(0, problem.solver.solve(problem.losses, problem.budget_bytes))
        uniform = [
            r for r in history if r.origin == "uniform" and r.read.whole and r.size_bytes <= problem.budget_bytes
        ]
        fitting = [trial for trial in uniform if problem.space.allows(trial.plan)]
        parent = min(fitting, key=lambda trial: (trial.loss, trial.number), default=None)
        generator = np.random.default_rng([problem.seed, 0])
        plans = self._distinct(lambda: self.mutation.rounded(generator))
        return Generation(
            number=0, parent=parent.plan if parent else None, offspring=plans or (problem.solver.smallest(),)
        )

    def _next(self, number: int, parent: Plan) -> Generation:
        self._tried.add(parent)
        generator = np.random.default_rng([self.problem.seed, number])
        levels = self.levels.vector(parent)
        return Generation(
            number=number, parent=parent, offspring=self._distinct(lambda: self.mutation.mutated(levels, generator))
        )

    def _distinct(self, draw: Callable[[], Integers | None]) -> tuple[Plan, ...]:
        """Drawn plans that were not tried before; fewer than `OFFSPRING` if few are left."""
        plans: list[Plan] = []
        for _ in range(TRIES * OFFSPRING):
            if (levels := draw()) is None:
                continue
            plan = self.levels.plan(levels)
            if plan not in self._tried:
                self._tried.add(plan)
                plans.append(plan)
            if len(plans) == OFFSPRING:
                break
        return tuple(plans)


for _name, _start in (("evopress", "uniform"), ("evopress-solver", "solver")):
    samplers.register(_name)(partial(EvoPressSampler, _start))
