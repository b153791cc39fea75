"""Solve, measure, learn, solve again: paredown's own sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna
from scipy.stats import norm

from paredown.search.acquisition import expected_gain, expected_improvement
from paredown.search.moves import Move, Moves
from paredown.search.pareto import improvements, pareto_front
from paredown.search.record import Record
from paredown.search.rungs import on_whole_set
from paredown.search.samplers import Proposal, Question, samplers
from paredown.search.solver import Losses
from paredown.search.surrogate import Surrogate
from paredown.space.plan import Plan

DRAWS = 4
"""Plans that are solved for under draws from the posterior."""

POINTS = 6
"""Budgets along the front at which the mean is solved for, each time others."""

PARENTS = 6
MOVES = 400
BUILT = 48
"""Of the moves that were drawn, so many of those that promise most are compared with the solver's plans."""

RUNG = 0.25
FEWEST = 8
"""A search set of fewer sequences has no rungs."""

MARGIN = 0.1
"""The corner that gains of hypervolume are measured from lies this far above the greatest log loss of the front."""

LIKELY = 0.2
"""A plan that looks this likely to be better than the best one, on the rung where it was measured, is measured on the whole set."""


@samplers.register("frontier")
class FrontierSampler:
    """Plans that promise the greatest gain, among those that the solver finds under what was learnt and byte-conserving moves.

    The solver answers under the mean of what was learnt and under draws from it (Thompson sampling); moves start from the best plans
    that were measured. With ``focus: budget`` all effort goes there: the plan of the greatest expected improvement is measured on a
    quarter of the search set, and on all of it if it may still be the best. With ``focus: front`` the plan that is expected to add
    most to the hypervolume of size and log loss is measured on all of it. No plan is measured twice: where all at the budget were,
    the front is next.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.inventory = question.space.inventory

    def optuna_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Nothing is suggested through Optuna."""
        return optuna.samplers.RandomSampler(seed=self.question.seed + number)

    def propose(self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """A plan that was not tried yet, or one that is worth more sequences."""
        round_ = _Round(self.question, history, failed, np.random.default_rng([self.question.seed, trial.number]))
        return round_.along_the_front() if self.question.focus == "front" else round_.at_the_budget()


@dataclass(frozen=True)
class _Round:
    """One proposal in the making."""

    question: Question
    history: Sequence[Record]
    failed: frozenset[Plan]
    generator: np.random.Generator

    def at_the_budget(self) -> Proposal:
        """The most promising plan within the budget."""
        if promoted := self._promoted():
            return promoted
        budget = self.question.budget_bytes
        fitting = sorted(self._fitting, key=lambda r: (r.loss, r.number))
        solved = [self._solved(budget, mean=True), *(self._solved(budget, mean=False) for _ in range(DRAWS))]
        parents = list(dict.fromkeys([solved[0][0], *(r.plan for r in fitting if self.question.space.allows(r.plan))][: 1 + PARENTS]))
        moves = sorted(self._moves(parents, [budget] * len(parents)), key=lambda move: move.loss)[:BUILT]
        candidates = self._new([*solved, *((self.moves.plan(move), "moved bytes") for move in moves)])
        if not candidates:
            return self.along_the_front()
        prediction = self.surrogate.predict([plan for plan, _ in candidates])
        best = np.log(fitting[0].loss) if fitting and fitting[0].loss > 0 else float(prediction.mean.max())
        chosen = int(expected_improvement(prediction, best).argmax())
        rung = round(RUNG * self.question.sequences) if self.question.sequences >= FEWEST and fitting else None
        return self._proposal(*candidates[chosen], float(prediction.mean[chosen]), rung)

    def along_the_front(self) -> Proposal:
        """The plan that adds most to the front."""
        points = [(float(record.size_bytes), float(np.log(record.loss))) for record in self._front]
        low, high = self._range()
        corner = (float(high), max((loss for _, loss in points), default=0.0) + MARGIN)
        budgets = np.exp(self.generator.uniform(np.log(low), np.log(high), POINTS + DRAWS)).astype(int)
        solved = [self._solved(max(int(budget), low), mean=place < POINTS) for place, budget in enumerate(budgets)]
        parents = [record.plan for record in self._front]
        moves = list(self._moves(parents, [high] * len(parents)))
        places = np.array([(move.size_bytes, np.log(max(move.loss, 1e-300))) for move in moves]).reshape(-1, 2)
        order = np.argsort(-improvements(places, points, corner), kind="stable")[:BUILT]
        candidates = self._new([*solved, *((self.moves.plan(moves[i]), "moved bytes") for i in order)])
        if not candidates:
            return self._again()
        prediction = self.surrogate.predict([plan for plan, _ in candidates])
        sizes = np.array([plan.size_bytes(self.question.space.inventory) for plan, _ in candidates], dtype=np.float64)
        chosen = int(expected_gain(sizes, prediction, points, corner).argmax())
        return self._proposal(*candidates[chosen], float(prediction.mean[chosen]), None)

    @cached_property
    def whole(self) -> list[Record]:
        """Trials on the whole search set."""
        return [record for record in self.history if record.whole]

    @cached_property
    def surrogate(self) -> Surrogate:
        """What was learnt so far."""
        return Surrogate(self.question.space.inventory, self.question.losses, self.history)

    @cached_property
    def expected(self) -> Losses:
        """The mean of what was learnt."""
        return self.surrogate.expected()

    @cached_property
    def moves(self) -> Moves:
        """Within the space, judged by the mean of what was learnt."""
        return Moves(self.question.solver, self.expected)

    @cached_property
    def _front(self) -> list[Record]:
        """Plans of the space that no other beats in size and loss."""
        fitting = [record for record in self.whole if record.loss > 0 and self.question.space.allows(record.plan)]
        return [fitting[i] for i in pareto_front([(record.size_bytes, record.loss) for record in fitting])]

    @cached_property
    def _known(self) -> frozenset[Plan]:
        return self.failed | {record.plan for record in self.history}

    @cached_property
    def _fitting(self) -> list[Record]:
        """Whole trials within the budget and all limits."""
        small = [record for record in self.whole if record.size_bytes <= self.question.budget_bytes and record.loss > 0]
        return [record for record in small if self._keeps_to_limits(record.plan)]

    def _keeps_to_limits(self, plan: Plan) -> bool:
        return all(limit.allows(plan, self.question.space.inventory) for limit in self.question.solver.limits)

    def _range(self) -> tuple[int, int]:
        """The smallest size that there is, and the largest that was measured."""
        smallest = self.question.solver.smallest().size_bytes(self.question.space.inventory)
        return smallest, max([smallest + 1, *(record.size_bytes for record in self._front)])

    def _solved(self, budget: int, *, mean: bool) -> tuple[Plan, str]:
        if mean:
            return self.question.solver.solve(self.expected, budget), "solved for what was learnt"
        return self.question.solver.solve(self.surrogate.draw(self.generator), budget), "solved under a draw"

    def _moves(self, parents: Sequence[Plan], room: Sequence[int]) -> Iterator[Move]:
        return self.moves.drawn(self.generator, parents, room, MOVES)

    def _new(self, candidates: Sequence[tuple[Plan, str]]) -> list[tuple[Plan, str]]:
        """Those that were not tried, each once."""
        found: dict[Plan, str] = {}
        for plan, label in candidates:
            if plan not in self._known and self._keeps_to_limits(plan):
                found.setdefault(plan, label)
        return list(found.items())

    def _promoted(self) -> Proposal | None:
        """The plan on a lower rung that is most likely better than the best one, if that is likely enough."""
        done = {record.plan for record in self.whole} | self.failed
        waiting = [record for record in self.history if not record.whole and record.plan not in done]
        if not waiting or not self._fitting:
            return None
        logs, spreads = on_whole_set([*self.whole, *waiting])
        best = np.log(min(record.loss for record in self._fitting))
        likely = norm.cdf((best - logs[len(self.whole) :]) / np.maximum(spreads[len(self.whole) :], 1e-9))
        chosen = int(likely.argmax())
        if likely[chosen] < LIKELY:
            return None
        return self._proposal(waiting[chosen].plan, "measured on all", float(logs[len(self.whole) + chosen]), None)

    def _again(self) -> Proposal:
        """Where nothing new is to be had."""
        plan = self.question.solver.solve(self.expected, self.question.budget_bytes)
        return Proposal(plan=plan, label="solved again", predicted_loss=self.surrogate.predicted_loss(plan))

    def _proposal(self, plan: Plan, label: str, log_loss: float, sequences: int | None) -> Proposal:
        return Proposal(plan=plan, label=label, predicted_loss=float(np.exp(log_loss)), sequences=sequences)
