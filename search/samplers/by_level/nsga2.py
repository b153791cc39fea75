"""NSGA-II over vectors of levels, for objectives that are cheap to evaluate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from paredown.space.system.interruption import stop_if_asked

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

POPULATION = 200
GENERATIONS = 20

CROSSOVER = 0.9
"""Probability that a child is crossed over with its second parent."""

MUTATION = 0.1
"""Probability that a child is replaced by a uniformly random vector."""


def evolved(
    start: Integers,
    objectives: Callable[[Integers], Floats],
    bounds: tuple[Integers, Integers],
    generator: np.random.Generator,
    faults: Callable[[Integers], Floats],
    canonical: Callable[[Integers], Integers],
) -> Integers:
    """The final population, ``(n, sites)``, without duplicates.

    Args:
        start: Initial population, of any size.
        objectives: Two objectives to minimise, ``(n, 2)``, of vectors ``(n, sites)``.
        bounds: Lowest and highest level of each site, ``(sites,)``.
        generator: Random number generator.
        faults: Constraint violation of each vector, ``(n,)``; 0 if feasible. Smaller violations rank first.
        canonical: Maps equivalent vectors to one canonical vector.

    Source:
        Deb, Pratap, Agarwal, Meyarivan, 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
        Transactions on Evolutionary Computation 6(2).
    """
    population = np.unique(canonical(np.clip(start, *bounds)), axis=0)
    rank, crowding = _ranked(objectives(population), faults(population))
    for _ in range(GENERATIONS):
        stop_if_asked()
        children = _children(population, rank, crowding, bounds, generator)
        joined = np.unique(np.concatenate([population, canonical(children)]), axis=0)
        rank, crowding = _ranked(objectives(joined), faults(joined))
        best = np.lexsort((-crowding, rank))[:POPULATION]
        population, rank, crowding = joined[best], rank[best], crowding[best]
    return population


def _children(
    population: Integers,
    rank: Integers,
    crowding: Floats,
    bounds: tuple[Integers, Integers],
    generator: np.random.Generator,
) -> Integers:
    """`POPULATION` children: parents from binary tournaments, uniform crossover, mutation by resampling."""
    draws = generator.integers(0, len(population), (2, 2, POPULATION))
    better = (rank[draws[0]] < rank[draws[1]]) | (
        (rank[draws[0]] == rank[draws[1]]) & (crowding[draws[0]] > crowding[draws[1]])
    )
    mothers, fathers = population[np.where(better, draws[0], draws[1])]
    shape = mothers.shape
    crossed = (generator.random((len(mothers), 1)) < CROSSOVER) & (generator.random(shape) < 0.5)
    children = np.where(crossed, fathers, mothers)
    low, high = bounds
    return np.where(generator.random((len(mothers), 1)) < MUTATION, generator.integers(low, high + 1, shape), children)


def _ranked(values: Floats, faults: Floats) -> tuple[Integers, Floats]:
    """Index of the front and crowding distance of each point of ``(n, 2)``.

    The ends of a front have infinite distance. Infeasible points rank behind all fronts, by violation.
    """
    rank = np.zeros(len(values), dtype=np.int64)
    left = np.flatnonzero(faults <= 0)
    number = 0
    while len(left):
        order = left[np.lexsort((values[left, 1], values[left, 0]))]
        second = values[order, 1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        front = order[second < before]
        rank[front] = number
        left = np.setdiff1d(left, front)
        number += 1
    worse = np.flatnonzero(faults > 0)
    rank[worse] = number + np.unique(faults[worse], return_inverse=True)[1]
    crowding = np.zeros(len(values))
    for front in range(number):
        places = np.flatnonzero(rank == front)
        for objective in values[places].T:
            order = np.argsort(objective, kind="stable")
            span = objective[order[-1]] - objective[order[0]] or 1.0
            gaps = np.full(len(places), np.inf)
            gaps[order[1:-1]] = (objective[order[2:]] - objective[order[:-2]]) / span
            crowding[places] += gaps
    return rank, crowding
