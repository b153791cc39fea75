"""What measured plans teach about the sensitivities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array

from paredown.search.record import Record
from paredown.search.rungs import on_whole_set
from paredown.search.solver import Losses
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WIDTHS = {
    "all": 0.3,
    "block": 0.15,
    "role": 0.15,
    "site": 0.15,
    "choice": 0.15,
    "pair": 0.1,
    "curvature": 0.1,
    "remainder": 0.05,
    "noise": 0.01,
}
"""Prior standard deviations of the logarithm: of an error that all sensitivities share, those of a block, of a role in the block, of a
site, of one choice wherever it is taken, of a pair alone; of how the loss bends away from the sum; of what no pair explains, alike for
plans that are alike; and of what nothing explains. Measured plans teach how far from them the truth is."""

FACTORS = (1 / 3, 1.0, 3.0)
PASSES = 2
STEPS = 3
"""Gauss-Newton steps to the most probable multipliers."""

MOST = 256
"""Trials that it learns from at most: those on the front, and the latest."""

MOST_FOR_WIDTHS = 96
REACH = 0.3
"""Of plans whose sites carry so great a share of the loss and differ, the remainders are alike by 1/e."""

TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Log losses of plans: expected, and how uncertain; each ``(n,)``."""

    mean: Floats
    spread: Floats


class Surrogate:
    """The loss of a plan is the sum of its sensitivities, each times a multiplier around one, and a remainder; a Gaussian process.

    The logarithms of the multipliers are jointly normal: pairs of a block, a role, a site, or with the same choice err alike. The
    remainder is alike for plans that are alike. Widths are learned: those of greatest posterior probability on a coarse grid.

    Args:
        inventory: The model's sites.
        losses: Sensitivities.
        records: Measured trials; those on lower rungs count for as much as rungs tell.

    Source:
        Rasmussen & Williams, 2006, "Gaussian Processes for Machine Learning", sections 2.2, 2.7 and 5.4; the sum in the logarithm is
        linearised at the most probable multipliers (Laplace's approximation).
    """

    def __init__(self, inventory: Inventory, losses: Losses, records: Sequence[Record]) -> None:
        self.inventory = inventory
        self.losses = losses
        floor = TINY * max([loss for loss in losses.values() if loss < np.inf], default=1.0)
        self.pairs = [pair for pair, loss in losses.items() if loss > 0]
        self._index = {pair: i for i, pair in enumerate(self.pairs)}
        self._log = np.log(np.maximum([losses[pair] for pair in self.pairs], floor))
        self._groups = _groups(inventory, self.pairs)
        known = [r for r in records if r.loss > 0 and all(entry in losses for entry in r.plan.entries) and self._columns(r.plan)]
        known = latest(known) if any(record.whole for record in known) else []
        self.widths = dict(WIDTHS)
        self.multipliers = np.zeros(len(self.pairs))
        self._plans = [record.plan for record in known]
        self._levels = 0.0
        if known:
            self._fit(*on_whole_set(known))

    def expected(self) -> dict[tuple[str, Choice], float]:
        """Losses under the most probable multipliers."""
        return self._scaled(self.multipliers)

    def draw(self, generator: np.random.Generator) -> dict[tuple[str, Choice], float]:
        """Losses under one draw from the posterior.

        Source:
            Wilson et al., 2020, "Efficiently Sampling Functions from Gaussian Process Posteriors", arXiv 2002.09309, section 3.1:
            a draw from the prior, corrected by what was measured (Matheron's rule).
        """
        prior = np.zeros(len(self.pairs))
        for name, members in self._groups.items():
            prior += self.widths[name] * generator.standard_normal(int(members.max(initial=-1)) + 1)[members]
        if not self._plans:
            return self._scaled(prior)
        rest = np.linalg.cholesky(self._unexplained) @ generator.standard_normal(len(self._plans))
        bend = self.widths["curvature"] * generator.standard_normal() * self._bend(self._shares_of_known[1])
        missing = self._targets - self._shares_of_known[0] @ prior - bend - rest
        return self._scaled(prior + self._back(cho_solve(self._factor, missing)))

    def predict(self, plans: Sequence[Plan]) -> Prediction:
        """Of plans whose choices all have a sensitivity."""
        shares, sums = self._shares(plans, self.multipliers)
        prior = self._prior(shares, sums, shares, sums, diagonal=True) + self.widths["remainder"] ** 2
        if not self._plans:
            return Prediction(mean=sums, spread=np.sqrt(prior))
        known, known_sums = self._shares_of_known
        remainder = self.widths["remainder"] ** 2 * self._alike(plans, self._plans)
        bend = self.widths["curvature"] ** 2 * np.outer(self._bend(sums), self._bend(known_sums))
        cross = self._prior(shares, sums, known, known_sums) + remainder
        spread = prior - (cross * cho_solve(self._factor, cross.T).T).sum(1)
        return Prediction(mean=sums + (remainder + bend) @ self._weights, spread=np.sqrt(np.maximum(spread, 1e-8)))

    def predicted_loss(self, plan: Plan) -> float | None:
        """Of one plan; None if it takes a choice that has no sensitivity."""
        if not all(entry in self.losses for entry in plan.entries):
            return None
        return float(np.exp(self.predict([plan]).mean[0])) if self._columns(plan) else 0.0

    def _fit(self, logs: Floats, spreads: Floats) -> None:
        for step in range(STEPS):
            shares, sums = self._shares_of_known = self._shares(self._plans, self.multipliers)
            if step == 0:
                self._levels = float(np.median(sums))
            self._targets = logs - sums + shares @ self.multipliers
            grams = self._grams(shares, sums)
            if step == STEPS - 1:
                self.widths = _learned(grams, self._targets, spreads)
            rest = ("remainder", "noise")
            self._unexplained = sum(self.widths[name] ** 2 * grams[name] for name in rest) + np.diag(spreads**2)
            covariance = sum(self.widths[name] ** 2 * gram for name, gram in grams.items() if name not in rest) + self._unexplained
            self._factor = cho_factor(covariance, lower=True)
            self._weights = cho_solve(self._factor, self._targets)
            self.multipliers = self._back(self._weights)

    def _grams(self, shares: csr_array, sums: Floats) -> dict[str, Floats]:
        """What each width, squared, is the factor of in the covariance of the measured log losses."""
        grams = {}
        for name, members in self._groups.items():
            by_group = _summed(shares, members)
            grams[name] = (by_group @ by_group.T).toarray()
        grams["curvature"] = np.outer(self._bend(sums), self._bend(sums))
        grams["remainder"] = self._alike(self._plans, self._plans)
        grams["noise"] = np.eye(len(self._plans))
        return grams

    def _prior(self, one: csr_array, sums: Floats, other: csr_array, other_sums: Floats, *, diagonal: bool = False) -> Floats:
        """Covariance of the log losses of plans with those of others, but for the remainder: ``(n, m)``, or its diagonal."""
        total: Floats = np.zeros(one.shape[0] if diagonal else (one.shape[0], other.shape[0]))
        bends = self._bend(sums), self._bend(other_sums)
        total += self.widths["curvature"] ** 2 * (bends[0] * bends[1] if diagonal else np.outer(*bends))
        for name, members in self._groups.items():
            left, right = _summed(one, members), _summed(other, members)
            total += self.widths[name] ** 2 * (left.multiply(right).sum(1) if diagonal else (left @ right.T).toarray())
        return total

    def _back(self, weights: Floats) -> Floats:
        """Log multipliers that weights of the measured plans make."""
        pulled = self._shares_of_known[0].T @ weights
        total = np.zeros(len(self.pairs))
        for name, members in self._groups.items():
            total += self.widths[name] ** 2 * np.bincount(members, pulled, minlength=len(self.pairs))[members]
        return total

    def _bend(self, sums: Floats) -> Floats:
        bend: Floats = sums - self._levels
        return bend

    def _shares(self, plans: Sequence[Plan], multipliers: Floats) -> tuple[csr_array, Floats]:
        """What each pair adds to a plan's sum, as a share of it, ``(n, pairs)``; and the logarithms of the sums."""
        columns = [self._columns(plan) for plan in plans]
        pointers = np.cumsum([0, *map(len, columns)])
        flat = np.array([column for row in columns for column in row], dtype=np.int64)
        values = np.exp((self._log + multipliers)[flat])
        rows = np.repeat(np.arange(len(plans)), np.diff(pointers))
        sums = np.maximum(np.bincount(rows, values, minlength=len(plans)), 1e-300)
        return csr_array((values / sums[rows], flat, pointers), shape=(len(plans), len(self.pairs))), np.log(sums)

    def _alike(self, plans: Sequence[Plan], others: Sequence[Plan]) -> Floats:
        """``exp(-d)`` with d what the sites weigh that differ, over the reach; ``(n, m)``."""
        here, there = self._places(plans), self._places(others)
        heavy = self._weight_of_sites
        distance = np.zeros((len(plans), len(others)))
        for column in np.flatnonzero(heavy):
            distance += heavy[column] * (here[:, column, None] != there[None, :, column])
        return np.exp(-distance / REACH)

    def _places(self, plans: Sequence[Plan]) -> Integers:
        """Index of the pair that each leaf is part of, ``(n, leaves)``; -1 where it is kept."""
        rows = np.full((len(plans), len(self._leaves)), -1)
        for row, plan in enumerate(plans):
            for site, choice in plan.entries:
                rows[row, self._covered[site]] = self._index.get((site, choice), -1)
        return rows

    @cached_property
    def _leaves(self) -> dict[str, int]:
        return {site.name: i for i, site in enumerate(self.inventory.leaves)}

    @cached_property
    def _covered(self) -> dict[str, list[int]]:
        return {site.name: [self._leaves[leaf] for leaf in site.covers or (site.name,)] for site in self.inventory.sites}

    @cached_property
    def _weight_of_sites(self) -> Floats:
        """How much of the loss each leaf carries in the measured plans; a site that overrules leaves shares it out among them."""
        weights = np.zeros(len(self._leaves))
        pulled = np.asarray(self._shares_of_known[0].sum(0)).ravel() / max(len(self._plans), 1)
        for (site, _), share in zip(self.pairs, pulled, strict=True):
            weights[self._covered[site]] += share / len(self._covered[site])
        whole: Floats = weights / max(float(weights.sum()), 1e-300)
        return whole

    def _columns(self, plan: Plan) -> list[int]:
        return [self._index[entry] for entry in plan.entries if entry in self._index]

    def _scaled(self, multipliers: Floats) -> dict[tuple[str, Choice], float]:
        values = np.exp(self._log + multipliers)
        return {**self.losses, **dict(zip(self.pairs, values.tolist(), strict=True))}


def latest(records: Sequence[Record]) -> list[Record]:
    """Those on the front of size and loss, and the newest, `MOST` at most, in the order of their numbers."""
    if len(records) <= MOST:
        return list(records)
    least, front = np.inf, []
    for record in sorted((r for r in records if r.whole), key=lambda r: (r.size_bytes, r.loss, r.number)):
        if record.loss < least:
            least = record.loss
            front.append(record)
    chosen = {record.number: record for record in front[-MOST // 2 :]}
    for record in reversed(records):
        if len(chosen) >= MOST:
            break
        chosen.setdefault(record.number, record)
    return [record for _, record in sorted(chosen.items())]


def _groups(inventory: Inventory, pairs: Sequence[tuple[str, Choice]]) -> dict[str, Integers]:
    """For each way in which sensitivities err alike, the group of each pair."""
    blocks = {site.name: site.block for site in inventory.sites}

    def numbered(keys: Sequence[object]) -> Integers:
        numbers: dict[object, int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    return {
        "all": numbered([0] * len(pairs)),
        "block": numbered([blocks[site] for site, _ in pairs]),
        "role": numbered([site.partition(f".{blocks[site]}.")[2] or site for site, _ in pairs]),
        "site": numbered([site for site, _ in pairs]),
        "choice": numbered([choice for _, choice in pairs]),
        "pair": np.arange(len(pairs)),
    }


def _summed(shares: csr_array, members: Integers) -> csr_array:
    """Shares ``(n, pairs)`` summed over groups: ``(n, groups)``."""
    groups = int(members.max(initial=0)) + 1
    summed = csr_array((shares.data, members[shares.indices], shares.indptr), shape=(shares.shape[0], groups), copy=True)
    summed.sum_duplicates()
    return summed


def _learned(grams: dict[str, Floats], targets: Floats, spreads: Floats) -> dict[str, float]:
    """Widths of great posterior probability, one changed after the other; each is expected to be right within a factor of three."""
    part = slice(-MOST_FOR_WIDTHS, None)
    grams = {name: gram[part, part] for name, gram in grams.items()}
    targets, noise = targets[part], np.diag(spreads[part] ** 2)
    widths = dict(WIDTHS)

    def score(widths: dict[str, float]) -> float:
        covariance = sum((widths[name] ** 2 * gram for name, gram in grams.items()), noise)
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, targets)
        prior = sum((np.log(widths[name] / WIDTHS[name]) / np.log(3)) ** 2 for name in widths)
        return float(-0.5 * white @ white - np.log(factor.diagonal()).sum() - 0.5 * prior)

    best = score(widths)
    for _ in range(PASSES):
        for name in widths:
            for factor in FACTORS:
                tried = {**widths, name: WIDTHS[name] * factor}
                if tried != widths and (found := score(tried)) > best:
                    best, widths = found, tried
    return widths
