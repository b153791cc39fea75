"""paredown's own sampler: solve, measure, update the surrogate, solve again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import optuna

from paredown.search.neighbours.byte_moves import Move, Moves
from paredown.search.neighbours.structures import Structures
from paredown.search.pareto import improvements, lower_left
from paredown.search.samplers import Problem, Proposal, samplers
from paredown.search.solver.solver import Losses
from paredown.search.surrogate.acquisition import expected_gain, expected_improvement
from paredown.search.surrogate.features import Basis
from paredown.search.surrogate.gaussian_process import Surrogate
from paredown.search.surrogate.rung_correction import likeliest
from paredown.search.trial import Trial
from paredown.space.plan import Plan

MEANS, DRAWS = 4, 4
"""New plans solved under the posterior mean, within the largest steps of the front; plans under posterior samples.

Each is 1 from `MOST_PAIRS` pairs on.
"""

STEPS = 3
"""Most steps of the front that are tried, as a multiple of `MEANS`, since the solver finds no new plan in some."""

MIDDLE = (0.3, 0.7)
"""Range of the solver's budget within a step of the front, as fractions of the step's bytes."""

MOST_PAIRS = 1000
"""Number of (site, choice) pairs from which on `MEANS`, `DRAWS` and `STRUCTURES` count as 1."""

STRUCTURES = 6
"""Structures near those of the best plans that the solver completes, if the space has structures."""

PARENTS = 6
"""Measured plans that moves and structures start from."""

MOVES = 300
"""Moves drawn for one proposal."""

BUILT = 32
"""Most promising moves that become candidates besides the solver's plans."""

RUNG = 0.25
"""Fraction of the search set that a new plan at the budget is first measured on."""

FEWEST = 8
"""Fewest sequences of a search set with rungs."""

MARGIN = 0.1
"""Distance of the hypervolume's reference point above the largest log loss of the front."""


@samplers.register("frontier")
class FrontierSampler:
    """Proposes the candidate of greatest expected gain under a surrogate of the loss.

    Candidates come from the solver, which re-solves under the posterior mean and under posterior samples (Thompson
    sampling), and from byte-conserving moves that start from the best measured plans.

    With ``focus: budget``, the candidate of greatest expected improvement within the budget is measured on a quarter of
    the search set, and then on all of it if it may still be the best. With ``focus: front``, the candidate of greatest
    expected hypervolume gain of size and log loss is measured on all of it. A plan is not measured twice on the same
    rung while there are new ones; if all candidates at the budget were measured, the front is next.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.basis = Basis(problem.space.inventory, problem.losses)
        self.structures = Structures(problem.solver)
        self.smallest = problem.solver.size_bytes(problem.solver.smallest())
        self._allowed: dict[Plan, bool] = {}

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """A new plan, or a plan of a lower rung that is promoted to the whole search set."""
        round_ = _Round(self, history, failed, np.random.default_rng([self.problem.seed, trial.number]))
        return round_.along_the_front() if self.problem.focus == "front" else round_.at_the_budget()

    def allows(self, plan: Plan) -> bool:
        """Whether a measured plan lies in the space and keeps to all limits except the budget; cached."""
        if plan not in self._allowed:
            self._allowed[plan] = self.problem.space.allows(plan) and self.keeps_to_limits(plan)
        return self._allowed[plan]

    def keeps_to_limits(self, plan: Plan) -> bool:
        """Whether a plan keeps to all limits except the budget."""
        return all(limit.allows(plan, self.problem.space.inventory) for limit in self.problem.solver.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A plan that may be proposed."""

    plan: Plan
    label: str
    size_bytes: int


@dataclass(frozen=True)
class _Round:
    """The computation of one proposal."""

    sampler: FrontierSampler
    history: Sequence[Trial]
    failed: frozenset[Plan]
    generator: np.random.Generator

    def at_the_budget(self) -> Proposal:
        """The proposal of greatest expected improvement within the budget."""
        if promoted := self._promoted():
            return promoted
        budget, fitting = self.problem.budget_bytes, sorted(self._fitting, key=lambda r: (r.loss, r.number))
        solved = [self._solved(budget, mean=True), *(self._solved(budget, mean=False) for _ in range(self._few(DRAWS)))]
        solved += self._restructured(fitting[:PARENTS], [budget] * self._structures)
        parents = {candidate.plan: candidate.size_bytes for candidate in solved[:1]}
        parents |= {trial.plan: trial.size_bytes for trial in fitting if self.sampler.allows(trial.plan)}
        moves = self._moves(dict(list(parents.items())[: 1 + PARENTS]), budget)
        best_moves = sorted(moves, key=lambda move: move.loss)[:BUILT]
        candidates = self._new([*solved, *map(self._moved, best_moves)])
        if not candidates:
            return self.along_the_front()
        prediction = self.surrogate.predict([candidate.plan for candidate in candidates])
        best = np.log(fitting[0].loss) if fitting else float(prediction.mean.max())
        gains = expected_improvement(prediction, best)
        chosen = int(gains.argmax())
        rung = round(RUNG * self.problem.sequences) if self.problem.sequences >= FEWEST and fitting else None
        gain = float(gains[chosen]) if fitting else None
        return self._proposal(candidates[chosen], float(prediction.mean[chosen]), rung, gain)

    def along_the_front(self) -> Proposal:
        """The proposal of greatest expected hypervolume gain."""
        points = [(float(trial.size_bytes), float(np.log(trial.loss))) for trial in self._front]
        low = self.sampler.smallest
        high = max([low + 1, *(trial.size_bytes for trial in self._front)])
        corner = (float(high), max((loss for _, loss in points), default=0.0) + MARGIN)
        solved = self._within_steps()
        solved += [self._solved(budget, mean=False) for budget in self._budgets(low, high, self._few(DRAWS))]
        solved += self._restructured(self._front, self._budgets(low, high, self._structures))
        places = self.generator.permutation(len(self._front))[:PARENTS]
        moves = list(self._moves({self._front[i].plan: self._front[i].size_bytes for i in places}, high))
        ends = np.array([(move.size_bytes, np.log(max(move.loss, 1e-300))) for move in moves]).reshape(-1, 2)
        order = np.argsort(-improvements(ends, points, corner), kind="stable")[:BUILT]
        candidates = self._new([*solved, *(self._moved(moves[i]) for i in order)])
        if not candidates:
            return self._again()
        prediction = self.surrogate.predict([candidate.plan for candidate in candidates])
        sizes = np.array([candidate.size_bytes for candidate in candidates], dtype=np.float64)
        chosen = int(expected_gain(sizes, prediction, points, corner).argmax())
        return self._proposal(candidates[chosen], float(prediction.mean[chosen]), None, self._nothing)

    @property
    def problem(self) -> Problem:
        """The sampler's problem."""
        return self.sampler.problem

    @cached_property
    def whole(self) -> list[Trial]:
        """Trials on the whole search set."""
        return [trial for trial in self.history if trial.read.whole]

    @cached_property
    def surrogate(self) -> Surrogate:
        """The surrogate fitted to the history."""
        return Surrogate(self.sampler.basis, self.history)

    @cached_property
    def expected(self) -> Callable[[int], Losses]:
        """Losses under the posterior mean in plans of a given size [bytes]; cached."""
        return cache(self.surrogate.expected)

    @cached_property
    def moves(self) -> Moves:
        """Moves within the space, whose losses are predicted by the posterior mean."""
        return Moves(self.problem.solver, self.expected)

    @cached_property
    def _front(self) -> list[Trial]:
        """Pareto front of size and loss among allowed trials on the whole search set."""
        fitting = [trial for trial in self.whole if trial.loss > 0 and self.sampler.allows(trial.plan)]
        return [fitting[i] for i in lower_left([(trial.size_bytes, trial.loss) for trial in fitting])]

    @cached_property
    def _fitting(self) -> list[Trial]:
        """Trials on the whole search set within the budget and all limits."""
        small = [trial for trial in self.whole if trial.size_bytes <= self.problem.budget_bytes and trial.loss > 0]
        return [trial for trial in small if self.sampler.keeps_to_limits(trial.plan)]

    @cached_property
    def _known(self) -> frozenset[Plan]:
        return self.failed | {trial.plan for trial in self.history}

    def _few(self, count: int) -> int:
        return count if len(self.sampler.basis.pairs) < MOST_PAIRS else 1

    @property
    def _structures(self) -> int:
        return self._few(STRUCTURES) if self.sampler.structures.options else 0

    def _solved(self, budget: int, *, mean: bool) -> _Candidate:
        losses = self.expected(budget) if mean else self.surrogate.draw(self.generator, budget)
        plan = self.problem.solver.solve(losses, budget)
        label = "solved under the posterior mean" if mean else "solved under a posterior sample"
        return _Candidate(plan=plan, label=label, size_bytes=self.problem.solver.size_bytes(plan))

    def _within_steps(self) -> list[_Candidate]:
        """New plans that the solver finds within the steps of the front of largest area in bytes and log loss."""
        found: dict[Plan, _Candidate] = {}
        steps = sorted(
            pairwise(self._front),
            key=lambda step: (step[0].size_bytes - step[1].size_bytes) * np.log(step[0].loss / step[1].loss),
        )
        for lower, upper in steps[: STEPS * self._few(MEANS)]:
            within = self.generator.uniform(*MIDDLE)
            candidate = self._solved(
                round(lower.size_bytes + within * (upper.size_bytes - lower.size_bytes)), mean=True
            )
            if candidate.plan not in self._known:
                found.setdefault(candidate.plan, candidate)
            if len(found) == self._few(MEANS):
                break
        return list(found.values())

    def _budgets(self, low: int, high: int, count: int) -> list[int]:
        return [max(int(budget), low) for budget in np.exp(self.generator.uniform(np.log(low), np.log(high), count))]

    def _restructured(self, trials: Sequence[Trial], budgets: Sequence[int]) -> list[_Candidate]:
        """The solver's plans for structures near those of measured plans, one per budget.

        The parent is one of the last `PARENTS` trials that fit the budget; on a front these are the largest.
        """
        structures, found = self.sampler.structures, []
        for budget in budgets:
            if fitting := [trial for trial in trials if trial.size_bytes <= budget and self.sampler.allows(trial.plan)]:
                near = fitting[-PARENTS:]
                parent = near[int(self.generator.integers(len(near)))]
                structure = structures.near(self.generator, structures.of(parent.plan))
                if plan := structures.solved(structure, self.expected(budget), budget):
                    size = self.problem.solver.size_bytes(plan)
                    found.append(_Candidate(plan=plan, label="neighbouring structure", size_bytes=size))
        return found

    def _moved(self, move: Move) -> _Candidate:
        return _Candidate(plan=self.moves.plan(move), label="moved bytes", size_bytes=move.size_bytes)

    def _moves(self, parents: Mapping[Plan, int], room: int) -> Iterator[Move]:
        return self.moves.drawn(self.generator, parents, room, MOVES)

    def _new(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """The candidates that were not measured and keep to all limits, each plan once."""
        found: dict[Plan, _Candidate] = {}
        for candidate in candidates:
            if candidate.plan not in self._known and self.sampler.keeps_to_limits(candidate.plan):
                found.setdefault(candidate.plan, candidate)
        return list(found.values())

    def _promoted(self) -> Proposal | None:
        """The plan on a lower rung likeliest to beat the best plan, if it is likely enough."""
        done = {trial.plan for trial in self.whole} | self.failed
        waiting = [trial for trial in self.history if not trial.read.whole and trial.plan not in done]
        if not waiting or not self._fitting:
            return None
        found = likeliest(self.whole, waiting, min(trial.loss for trial in self._fitting))
        if found is None:
            return None
        trial, loss = found
        return Proposal(plan=trial.plan, label="promoted to the full search set", predicted_loss=loss)

    def _again(self) -> Proposal:
        """The solver's plan at the budget, proposed again if no new plan is found."""
        budget = self.problem.budget_bytes
        plan = self.problem.solver.solve(self.expected(budget), budget)
        predicted = self.surrogate.predicted_loss(plan)
        return Proposal(plan=plan, label="solved again", predicted_loss=predicted, expected_gain=self._nothing)

    @property
    def _nothing(self) -> float | None:
        """Expected gain at the budget of a plan that does not aim at it: 0, or None if the focus is the front.

        A hypervolume gain has another unit, so it is never given here.
        """
        return None if self.problem.focus == "front" else 0.0

    def _proposal(self, candidate: _Candidate, log_loss: float, sequences: int | None, gain: float | None) -> Proposal:
        plan, label, loss = candidate.plan, candidate.label, float(np.exp(log_loss))
        return Proposal(plan=plan, label=label, predicted_loss=loss, sequences=sequences, expected_gain=gain)
