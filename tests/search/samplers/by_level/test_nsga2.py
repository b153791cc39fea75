"""NSGA-II, and the surrogate that it runs on."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from paredown.search.pareto import dominates, hypervolume
from paredown.search.samplers.by_level.nsga2 import POPULATION, _children, _ranked, evolved
from paredown.search.samplers.by_level.radial_basis import MOST, Radial

BOUNDS = np.zeros(6, dtype=np.int64), np.array([3, 3, 3, 2, 3, 0])
WEIGHTS = np.array([5.0, 1.0, 3.0, 2.0, 0.5, 1.0])


def objectives(vectors: np.ndarray) -> np.ndarray:
    return np.stack([(WEIGHTS * np.exp(-vectors)).sum(1), (vectors * [1, 2, 3, 1, 2, 9]).sum(1)], 1)


def no_faults(vectors: np.ndarray) -> np.ndarray:
    return np.zeros(len(vectors))


def same(vectors: np.ndarray) -> np.ndarray:
    return vectors


def test_it_finds_the_front_of_a_listed_problem() -> None:
    """From one vector on; no two of the population are alike, none leaves its bounds."""
    listed = np.array(list(product(*(range(high + 1) for high in BOUNDS[1]))))
    found = evolved(listed[:1], objectives, BOUNDS, np.random.default_rng(0), no_faults, same)
    assert len(np.unique(found, axis=0)) == len(found) == POPULATION
    assert (found >= BOUNDS[0]).all() and (found <= BOUNDS[1]).all()
    corner = (12.0, 30.0)
    whole, share = (hypervolume(objectives(vectors).tolist(), corner) for vectors in (listed, found))
    assert share > 0.995 * whole


def test_a_front_larger_than_the_population_is_covered_evenly() -> None:
    """Both ends stay, and no gap is much wider than the others: of one front the loneliest survive."""
    most = 5000
    bounds = np.zeros(1, dtype=np.int64), np.array([most])

    def line(vectors: np.ndarray) -> np.ndarray:
        return np.stack([vectors[:, 0], most - vectors[:, 0]], 1).astype(float)

    found = evolved(np.array([[0], [most]]), line, bounds, np.random.default_rng(0), no_faults, same)[:, 0]
    assert len(found) == POPULATION
    assert (found.min(), found.max()) == (0, most)
    assert np.diff(np.sort(found)).max() < 5 * most / POPULATION


def test_of_two_parents_on_one_front_the_lonelier_is_taken() -> None:
    """One of ten whose neighbours are far wins all its tournaments: it has about twice its share of the children."""
    population, crowding = np.arange(10)[:, None], np.zeros(10)
    crowding[3] = np.inf
    bounds = np.zeros(1, dtype=np.int64), np.array([9])
    drawn = [
        _children(population, np.zeros(10, dtype=np.int64), crowding, bounds, np.random.default_rng(seed))
        for seed in range(5)
    ]
    assert float(np.mean(np.array(drawn) == 3)) > 0.15


def test_what_is_not_allowed_dies_out() -> None:
    start = np.array([[3, 3, 3, 2, 3, 0]])
    found = evolved(start, objectives, BOUNDS, np.random.default_rng(0), lambda v: np.maximum(0.0, v.sum(1) - 6), same)
    allowed = found[found.sum(1) <= 6]
    assert len(allowed) > 0.9 * len(found)
    assert objectives(allowed)[:, 0].min() == pytest.approx(
        objectives(np.array([[3, 1, 2, 0, 0, 0], [2, 1, 2, 1, 0, 0]]))[:, 0].min(), rel=0.1
    )


def test_ranks_are_numbers_of_fronts() -> None:
    """Counted by peeling one front after the other; what is not allowed comes after all that is, the worst last.

    Ties are no loss.
    """
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.integers(0, 6, (30, 2)).astype(float)
        faults = generator.integers(0, 3, 30) * (generator.random(30) < 0.3)
        rank, _ = _ranked(values, faults.astype(float))
        fine = np.flatnonzero(faults == 0)
        for a in fine:
            for b in fine:
                if dominates(values[a], values[b]):
                    assert rank[a] < rank[b]
        if len(fine) < 30:
            worse = np.flatnonzero(faults > 0)
            assert rank[worse].min() > rank[fine].max(initial=-1)
            assert (np.diff(rank[worse][np.argsort(faults[worse])]) >= 0).all()


def test_the_surrogate_goes_through_its_points() -> None:
    """Many, few, equal ones, points in one plane."""
    generator = np.random.default_rng(0)
    for count, width in ((40, 5), (3, 5), (1, 2)):
        points, values = generator.integers(0, 4, (count, width)) / 3, generator.normal(size=count)
        _, first = np.unique(points, axis=0, return_index=True)
        assert Radial(points, values).predict(points[first]) == pytest.approx(values[first], abs=1e-6)
    flat = np.concatenate([generator.random((20, 2)), np.ones((20, 1))], 1)
    assert Radial(flat, flat[:, 0]).predict(flat) == pytest.approx(flat[:, 0], abs=1e-6)


def test_the_surrogate_continues_a_plane() -> None:
    """The tail is linear where there are points enough for one."""
    points = np.random.default_rng(0).random((30, 3))
    far = np.array([[2.0, -1.0, 3.0]])
    assert Radial(points, points @ [1.0, 2.0, 3.0]).predict(far) == pytest.approx(far @ [1.0, 2.0, 3.0], rel=1e-3)


def test_of_too_many_points_the_newest_are_used() -> None:
    points = np.random.default_rng(0).random((MOST + 20, 2))
    values = np.concatenate([np.full(20, 1e6), points[20:, 0]])
    assert Radial(points, values).predict(points[20:40]) == pytest.approx(points[20:40, 0], abs=1e-3)
