"""AMQ: NSGA-II on a radial-basis surrogate of the loss; batches are chosen to space the front evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray

from paredown.search.pareto import pareto_front
from paredown.search.samplers import Problem, Proposal, samplers
from paredown.search.samplers.by_level.levels import Integers, Levels
from paredown.search.samplers.by_level.loss_history import Measured
from paredown.search.samplers.by_level.nsga2 import evolved
from paredown.search.samplers.by_level.radial_basis import Radial
from paredown.search.trial import Trial
from paredown.space.plan import Plan

THRESHOLD = 2.0
"""Sensitivity above which a site loses its lowest level, as a multiple of the median sensitivity."""

MANY = 16
"""Fewest leaves with several levels at which sensitive sites lose their lowest level."""

INITIAL = 20
"""Trials before the first batch: uniform and random plans."""

BATCH = 5
"""Trials per batch."""

SHARE_OVERRULED = 0.25
"""Most expected fraction of overruling sites in a random plan; each plan draws its probability from 0 to twice this."""

TRIES = 200
"""Most random plans drawn to find a new one within the range of sizes."""

Floats = NDArray[np.float64]


@samplers.register("amq")
class AmqSampler:
    """Measures batches of plans that a surrogate predicts on the front, chosen so that the front is evenly spaced.

    The first trials are the uniform plan of every level and random plans of all sizes. After that, three steps repeat.
    A radial-basis surrogate is fitted to all measured plans. NSGA-II, started from the measured front, minimises the
    predicted loss and the bytes. A batch whose sizes fill the gaps of the front is measured (`spread`).

    As in the source:

    - the four steps;
    - which sites are sensitive: twice the median;
    - the initial plans: the uniform plan of each level, then random plans, each with its own probabilities of levels;
    - interpolation by radial basis functions of the scaled levels;
    - population 200, 20 generations, binomial crossover .9, mutation .1 (which resamples a whole plan);
    - the criterion by which the batch is chosen.

    Changed in its favour, for a few hundred evaluations:

    - 20 initial plans and batches of 5, instead of 250 and 50 for 10,250 evaluations;
    - the surrogate predicts the logarithm of the loss;
    - sensitive sites lose their lowest level instead of all but the highest; no level is lost if there are few sites.

    Changed otherwise:

    - it knows the plans that a study measures first;
    - the batch is chosen by steepest descent instead of a genetic algorithm;
    - plans lie between the smallest and twice the budget, instead of between the fewest and the most bits;
    - the kernel (cubic, linear tail) is that of the searches that AMQ descends from; its own file was not available.

    Source:
        Lee, Woo, Jin, Lee, Park, 2025, "AMQ: Enabling AutoML for Mixed-precision Weight-Only Quantization of Large
        Language Models", EMNLP, arXiv:2509.12019; github.com/dlwns147/amq: search/optimizer.py, search/space.py,
        search/problem.py, scripts/amq_search.sh.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.levels = Levels(problem.space, problem.losses)
        self.lowest = self._pruned()
        self.most = min(2 * problem.budget_bytes, max(problem.space.inventory.original_bytes, problem.budget_bytes))
        self._measured = Measured()
        self._batch: tuple[list[Trial], list[Plan]] | None = None

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """The next unmeasured plan of the batch; a failed plan is replaced by the next one of the surrogate's front."""
        if not self._measured.grows_to(history, failed):
            self._measured = Measured()
        self._measured.add(history, failed)
        own = [past for past in history if past.origin == "amq"]
        if len(own) >= INITIAL:
            done = (len(own) - INITIAL) // BATCH
            mine = {past.number for past in own[: INITIAL + done * BATCH]}
            archive = [r for r in history if r.read.whole and (r.origin != "amq" or r.number in mine)]
            if self._batch is None or self._batch[0] != archive:
                self._batch = archive, self._next(archive, np.random.default_rng([self.problem.seed, 1, done]))
            for plan in self._batch[1]:
                if plan not in self._measured:
                    return Proposal(plan=plan, label=f"batch {done + 1}")
        return self._initial(trial.number)

    def _initial(self, number: int) -> Proposal:
        """The uniform plan of each level in turn, then random plans."""
        highest = int(self.levels.top[self.levels.is_leaf].max(initial=0))
        for level in range(highest + 1):
            vector = np.where(self.levels.is_leaf, np.clip(level, self.lowest, self.levels.top), self.levels.top)
            plan = self.levels.plan(vector)
            if plan not in self._measured and self.levels.bytes_of(vector) <= self.most:
                return Proposal(plan=plan, label=f"uniform at level {level}")
        generator = np.random.default_rng([self.problem.seed, 0, number])
        for _ in range(TRIES):
            vector = self._random(generator)
            plan = self.levels.plan(vector)
            if plan not in self._measured and self.levels.bytes_of(vector) <= self.most:
                break
        return Proposal(plan=plan, label="random")

    def _random(self, generator: np.random.Generator) -> Integers:
        """A random vector; the probabilities of its levels are drawn for each site, so that all sizes occur."""
        levels = self.levels
        weights = generator.random(levels.sizes.shape[1])
        weights = np.where(np.arange(len(weights)) <= levels.top[:, None], weights, 0)
        weights[np.arange(len(weights[0])) < self.lowest[:, None]] = 0
        draws = generator.random((len(levels.sites), 1)) * weights.sum(1, keepdims=True)
        vector = (np.cumsum(weights, 1) < draws).sum(1)
        idle = ~levels.is_leaf & (generator.random(len(levels.sites)) >= generator.random() * 2 * SHARE_OVERRULED)
        return levels.allowed(np.where(idle, levels.top, vector))

    def _next(self, archive: Sequence[Trial], generator: np.random.Generator) -> list[Plan]:
        """New plans of NSGA-II's final population: first a batch that fills the gaps of the measured front."""
        levels = self.levels
        vectors = levels.canonical(np.array([levels.vector(trial.plan) for trial in archive]))
        surrogate = Radial(self._encoded(vectors), np.log([max(trial.loss, 1e-12) for trial in archive]))
        front = pareto_front([(trial.size_bytes, trial.loss) for trial in archive])

        def objectives(population: Integers) -> Floats:
            stacked: Floats = np.stack([surrogate.predict(self._encoded(population)), levels.bytes_of(population)], 1)
            return stacked

        bounds = self.lowest, levels.top
        found = evolved(vectors[front], objectives, bounds, generator, self._faults, levels.canonical)
        plans = {self.levels.plan(vector): vector for vector in found if not self._faults(vector[None])[0]}
        # Trials of the current batch are not excluded, so that a resumed study chooses the same batch.
        known = {trial.plan for trial in archive}
        new = {plan: vector for plan, vector in plans.items() if plan not in known}
        if not new:
            return []
        sizes = levels.bytes_of(np.array(list(new.values())))
        chosen = spread(sizes, np.array([archive[place].size_bytes for place in front]), BATCH)
        others = [place for place in range(len(sizes)) if place not in chosen]
        return [list(new)[place] for place in [*chosen, *others]]

    def _encoded(self, vectors: Integers) -> Floats:
        """Levels scaled to [0, 1], ``(n, free sites)``; only sites with several levels."""
        free = self.lowest < self.levels.top
        return np.asarray(vectors[:, free] / self.levels.top[free], dtype=np.float64)

    def _faults(self, vectors: Integers) -> Floats:
        """Constraint violation of each vector, ``(n,)``: bytes and drops above their limits; 0 if feasible."""
        excess = np.maximum(0, self.levels.bytes_of(vectors) / self.most - 1)
        return np.asarray(excess + np.maximum(0, self.levels.drops(vectors) - self.problem.space.max_drops))

    def _pruned(self) -> Integers:
        """Lowest allowed level of each site, ``(sites,)``: 1 at sensitive sites, otherwise 0.

        If the budget cannot be met, sites get their level 0 back, the least sensitive first.
        """
        levels, losses = self.levels, self.problem.losses
        sensitivity = np.array(
            [losses[s.name, c[0]] if s.is_leaf else 0.0 for s, c in zip(levels.sites, levels.choices, strict=True)]
        )
        several = levels.is_leaf & (levels.top > 0)
        limit = THRESHOLD * np.median(sensitivity[several]) if several.sum() >= MANY else np.inf
        lowest = np.where(several & (sensitivity > limit), 1, 0)
        for place in np.argsort(sensitivity, kind="stable"):
            if levels.bytes_of(np.where(levels.is_leaf, lowest, levels.top)) <= self.problem.budget_bytes:
                break
            lowest[place] = 0
        return lowest


def spread(sizes: Integers, front: Integers, count: int) -> list[int]:
    """Indices of ``count`` sizes that, joined with those of the front, are most evenly spaced.

    Minimises the standard deviation of the steps by steepest descent: starts from sizes spread evenly by rank, and
    makes the best exchange as long as one helps.
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
