"""AMQ: a radial-basis surrogate of the loss, NSGA-II on it, and of what that finds the plans that even the front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray

from paredown.search.genetic import evolved
from paredown.search.levels import Integers, Levels
from paredown.search.measured import Measured
from paredown.search.pareto import pareto_front
from paredown.search.radial import Radial
from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question, samplers
from paredown.space.plan import Plan

THRESHOLD = 2.0
"""Sites of more than so many times the median sensitivity do without their lowest level."""

MANY = 16
"""In a space of fewer sites none does."""

INITIAL = 20
BATCH = 5
SHARE_OVERRULED = 0.25
"""Most expected share of the sites that overrule others in a random plan."""

TRIES = 200

Floats = NDArray[np.float64]


@samplers.register("amq")
class AmqSampler:
    """Batches of plans that a surrogate expects on the front, chosen so that the front's sizes lie evenly.

    First uniform plans of every level and random ones of all sizes. Then, in turn: a radial-basis surrogate is fitted to all that
    was measured; NSGA-II minimises its loss and the bytes from the measured front on; of its population a batch is measured
    whose sizes fill the gaps of the front (`spread`).

    Faithful: the four steps, which sites are sensitive (twice the median), the initial plans (each level's uniform plan, then random
    ones, each with its own probabilities of levels), an interpolation by radial basis functions of the scaled levels, population 200 for 20
    generations with binomial crossover .9 and mutation .1 (which draws a plan anew), the criterion of the subset. Different, in its favour
    at some hundred evaluations: 20 initial plans and batches of 5, not 250 and 50 for 10,250 evaluations; the surrogate
    predicts the logarithm of the loss; sensitive sites lose their lowest level, not all but the highest, and none where there are
    few. Also: the seeds of the study are known to it; the subset is chosen by steepest descent, not by a genetic algorithm; plans
    lie between the smallest and twice the budget, theirs between the least and the most bits. The kernel (cubic, linear tail) is that of
    the family of searches from which theirs descends; their file was not to be had.

    Source:
        Lee, Woo, Jin, Lee, Park, 2025, "AMQ: Enabling AutoML for Mixed-precision Weight-Only Quantization of Large Language Models", EMNLP,
        arXiv:2509.12019; github.com/dlwns147/amq: search/optimizer.py, search/space.py, search/problem.py, scripts/amq_search.sh.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.levels = Levels(question.space, question.losses)
        self.lowest = self._pruned()
        self.most = min(2 * question.budget_bytes, max(question.space.inventory.original_bytes, question.budget_bytes))
        self._measured = Measured()
        self._batch: tuple[list[Record], list[Plan]] | None = None

    def propose(
        self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()
    ) -> Proposal:
        """The next plan of the batch that was not measured yet; where one failed, the next best takes its place."""
        if not self._measured.grows_to(history, failed):
            self._measured = Measured()
        self._measured.add(history, failed)
        own = [record for record in history if record.origin == "amq"]
        if len(own) >= INITIAL:
            done = (len(own) - INITIAL) // BATCH
            mine = {record.number for record in own[: INITIAL + done * BATCH]}
            archive = [r for r in history if r.whole and (r.origin != "amq" or r.number in mine)]
            if self._batch is None or self._batch[0] != archive:
                self._batch = archive, self._next(archive, np.random.default_rng([self.question.seed, 1, done]))
            for plan in self._batch[1]:
                if plan not in self._measured:
                    return Proposal(plan=plan, label=f"batch {done + 1}")
        return self._initial(trial.number)

    def _initial(self, number: int) -> Proposal:
        """The uniform plans of each level, then random ones."""
        highest = int(self.levels.top[self.levels.is_leaf].max(initial=0))
        for level in range(highest + 1):
            vector = np.where(self.levels.is_leaf, np.clip(level, self.lowest, self.levels.top), self.levels.top)
            plan = self.levels.plan(vector)
            if plan not in self._measured and self.levels.bytes_of(vector) <= self.most:
                return Proposal(plan=plan, label=f"uniform at level {level}")
        generator = np.random.default_rng([self.question.seed, 0, number])
        for _ in range(TRIES):
            vector = self._random(generator)
            plan = self.levels.plan(vector)
            if plan not in self._measured and self.levels.bytes_of(vector) <= self.most:
                break
        return Proposal(plan=plan, label="random")

    def _random(self, generator: np.random.Generator) -> Integers:
        """Levels drawn from probabilities that are drawn themselves, so that all sizes come up."""
        levels = self.levels
        weights = generator.random(levels.sizes.shape[1])
        weights = np.where(np.arange(len(weights)) <= levels.top[:, None], weights, 0)
        weights[np.arange(len(weights[0])) < self.lowest[:, None]] = 0
        draws = generator.random((len(levels.sites), 1)) * weights.sum(1, keepdims=True)
        vector = (np.cumsum(weights, 1) < draws).sum(1)
        idle = ~levels.is_leaf & (generator.random(len(levels.sites)) >= generator.random() * 2 * SHARE_OVERRULED)
        return levels.allowed(np.where(idle, levels.top, vector))

    def _next(self, archive: Sequence[Record], generator: np.random.Generator) -> list[Plan]:
        """New plans of the surrogate's front: first a batch that fills the gaps of the measured one, then the others."""
        levels = self.levels
        vectors = levels.canonical(np.array([levels.vector(record.plan) for record in archive]))
        surrogate = Radial(self._encoded(vectors), np.log([max(record.loss, 1e-12) for record in archive]))
        front = pareto_front([(record.size_bytes, record.loss) for record in archive])

        def objectives(population: Integers) -> Floats:
            stacked: Floats = np.stack([surrogate.predict(self._encoded(population)), levels.bytes_of(population)], 1)
            return stacked

        bounds = self.lowest, levels.top
        found = evolved(vectors[front], objectives, bounds, generator, self._faults, levels.canonical)
        plans = {self.levels.plan(vector): vector for vector in found if not self._faults(vector[None])[0]}
        known = {
            record.plan for record in archive
        }  # not what this batch measured: a batch that goes on is chosen alike
        new = {plan: vector for plan, vector in plans.items() if plan not in known}
        if not new:
            return []
        sizes = levels.bytes_of(np.array(list(new.values())))
        chosen = spread(sizes, np.array([archive[place].size_bytes for place in front]), BATCH)
        others = [place for place in range(len(sizes)) if place not in chosen]
        return [list(new)[place] for place in [*chosen, *others]]

    def _encoded(self, vectors: Integers) -> Floats:
        """Levels on [0, 1], of the sites that have several."""
        free = self.lowest < self.levels.top
        return np.asarray(vectors[:, free] / self.levels.top[free], dtype=np.float64)

    def _faults(self, vectors: Integers) -> Floats:
        """By how much plans leave the range of sizes or drop more than may be; 0 where they are allowed."""
        excess = np.maximum(0, self.levels.bytes_of(vectors) / self.most - 1)
        return np.asarray(excess + np.maximum(0, self.levels.drops(vectors) - self.question.space.max_drops))

    def _pruned(self) -> Integers:
        """Lowest level of each site: the second of a sensitive one; the least sensitive first are freed until the budget can be met."""
        levels, losses = self.levels, self.question.losses
        sensitivity = np.array(
            [losses[s.name, c[0]] if s.is_leaf else 0.0 for s, c in zip(levels.sites, levels.choices, strict=True)]
        )
        several = levels.is_leaf & (levels.top > 0)
        limit = THRESHOLD * np.median(sensitivity[several]) if several.sum() >= MANY else np.inf
        lowest = np.where(several & (sensitivity > limit), 1, 0)
        for place in np.argsort(sensitivity, kind="stable"):
            if levels.bytes_of(np.where(levels.is_leaf, lowest, levels.top)) <= self.question.budget_bytes:
                break
            lowest[place] = 0
        return lowest


def spread(sizes: Integers, front: Integers, count: int) -> list[int]:
    """Places of so many sizes that, joined with those of the front, lie most evenly: least standard deviation of the steps.

    From sizes that are spread by rank on, the exchange that helps most is made as long as one helps.
    """
    count = min(count, len(sizes))
    chosen = np.argsort(sizes, kind="stable")[np.linspace(0, len(sizes) - 1, count).astype(int)]
    best = np.inf
    while True:
        exchanged = np.repeat(np.repeat(chosen[None, None], len(sizes), 1), count, 0)  # (turns, sizes, chosen)
        exchanged[np.arange(count), :, np.arange(count)] = np.arange(len(sizes))
        fixed = np.broadcast_to(front, (count, len(sizes), len(front)))
        uneven = np.diff(np.sort(np.concatenate([fixed, sizes[exchanged]], 2), 2), axis=2).std(2)
        uneven[:, chosen] = np.inf
        if not uneven.size or uneven.min() >= best:
            return [int(place) for place in chosen]
        turn, place = np.unravel_index(uneven.argmin(), uneven.shape)
        best, chosen[turn] = uneven[turn, place], place
