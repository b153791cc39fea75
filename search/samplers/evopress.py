"""EvoPress: evolution at one budget by level switches, its offspring chosen in steps on more and more of the search set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna

from paredown.search.levels import Integers, Levels
from paredown.search.measured import Measured
from paredown.search.mutation import Mutation
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question, samplers
from paredown.space.plan import Plan

OFFSPRING = 16
SHARES = (1 / 8, 1 / 2, 1)
SURVIVORS = (4, 2, 1)
"""Of the offspring so many are left after they were measured on such shares of the search set."""

TRIES = 50
"""Mutations that are tried for each of the offspring before there are thought to be no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A parent with its offspring.

    Attributes:
        number: From 0; in the first the offspring are not the parent's own, where evolution starts from a uniform plan.
        parent: None in the first where there is none.
        offspring: None of them was any generation's before.
    """

    number: int
    parent: Plan | None
    offspring: tuple[Plan, ...]


class EvoPressSampler:
    """A (1 + lambda) evolution: the best of a parent and its offspring is the next parent.

    Each of the offspring is the parent with one to three levels raised and others lowered until the budget holds (`Mutation`). All
    are measured on an eighth of the search set, the best four on half of it, the best two on all of it, where the parent joins them.

    Faithful: the algorithm (1 + lambda, level switch, number of switches, selection in steps, elitism at the last), the start at the
    uniform level, rounded up and lowered at random where that leaves bytes, drop switches. Different, each in its favour: the
    steps are nested and the same in each generation, so that what was measured once is not measured again (there: fresh tokens
    each time); plans that were offspring before are not tried again; levels are the choices of a site that no other beats in
    bytes and predicted loss, so one step never ends in a choice of another technique that is worse; a byte budget leaves the number of
    drops open, so a mutation may also drop or restore one. 16 offspring on 1/8, 1/2
    and all of the search set, not 128 on 1/64, 1/8 and all, since theirs has 131,072 tokens.

    Args:
        start: ``uniform`` or ``solver``: the first parent.
        question: What is asked.

    Source:
        Sieberling, Kuznedelev, Kurtic, Alistarh, 2025, "EvoPress: Accurate Dynamic Model Compression via Evolutionary Search", ICML,
        arXiv:2410.14649, Algorithm 1; github.com/IST-DASLab/EvoPress: evo_quant_search.py (``--group_rule none``),
        evo_drop_quant_search.py, scripts/run_quant_search.sh.
    """

    def __init__(self, start: str, question: Question) -> None:
        self.question, self.start = question, start
        self.levels = Levels(question.space, question.losses)
        self.mutation = Mutation(self.levels, question.budget_bytes)
        rungs = [math.ceil(question.sequences * share) for share in SHARES]
        self.steps = dict(zip(rungs, SURVIVORS, strict=True))  # of equal rungs the last
        self._restart()

    def _restart(self) -> None:
        self._measured = Measured()
        self._tried: set[Plan] = set()
        self._generation: Generation | None = None

    def propose(
        self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()
    ) -> Proposal:
        """The next plan that the running generation needs measured, and on how many sequences.

        Generations that are over are not lived through again as long as the history grows by its end only.
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
        return Proposal(plan=generation.parent or self.question.solver.smallest(), label="nothing new to try")

    def _is_whole(self, rung: int) -> bool:
        return rung >= self.question.sequences

    def _selected(self, generation: Generation) -> tuple[Plan, int]:
        """The next parent and 0; before that, a plan that is still to be measured and on how many sequences."""
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

    def _first(self, history: Sequence[Record]) -> Generation:
        """The start: the solver's plan, or what is best of the uniform plans and of such as are uniform but for the last bytes."""
        question = self.question
        if self.start == "solver":
            return self._next(0, question.solver.solve(question.losses, question.budget_bytes))
        uniform = [r for r in history if r.origin == "uniform" and r.whole and r.size_bytes <= question.budget_bytes]
        fitting = [record for record in uniform if question.space.allows(record.plan)]
        parent = min(fitting, key=lambda record: (record.loss, record.number), default=None)
        generator = np.random.default_rng([question.seed, 0])
        plans = self._distinct(lambda: self.mutation.rounded(generator))
        return Generation(
            number=0, parent=parent.plan if parent else None, offspring=plans or (question.solver.smallest(),)
        )

    def _next(self, number: int, parent: Plan) -> Generation:
        self._tried.add(parent)
        generator = np.random.default_rng([self.question.seed, number])
        levels = self.levels.vector(parent)
        return Generation(
            number=number, parent=parent, offspring=self._distinct(lambda: self.mutation.mutated(levels, generator))
        )

    def _distinct(self, draw: Callable[[], Integers | None]) -> tuple[Plan, ...]:
        """Plans that were not tried before; fewer than wanted where few are left."""
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
