"""Dominance and the front, against their definitions, with ties, duplicates and NaN likely."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.search.pareto import dominates, hypervolume, improvements, lower_left, pareto_front

values = st.one_of(st.integers(0, 3).map(float), st.sampled_from([math.nan, math.inf, 0.5]))
clouds = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[values] * n), max_size=12))
numbers = st.integers(0, 2).map(float)
triples = st.tuples(numbers, numbers, numbers)


def by_definition(points: list[tuple[float, ...]]) -> list[int]:
    """Written apart: a point stays if nobody is as good everywhere, unless it came later or is worse somewhere."""
    front = []
    for i, point in enumerate(points):
        beaten = any(math.isnan(value) for value in point)
        for j, other in enumerate(points):
            as_good = sum(b <= a for a, b in zip(point, other, strict=True)) == len(point)
            beaten |= i != j and as_good and (point != other or j < i)
        if not beaten:
            front.append(i)
    return front


@given(clouds)
def test_the_front_is_what_nobody_dominates(points: list[tuple[float, ...]]) -> None:
    """The first of equal points, in the given order; points with a NaN are never on it."""
    assert pareto_front(points) == by_definition(points)


@given(triples, triples, triples)
def test_dominance_is_a_strict_order(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> None:
    """Nothing dominates itself, no two dominate each other, and dominance passes on."""
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    assert not (dominates(a, b) and dominates(b, c)) or dominates(a, c)


@given(triples, triples, st.integers(0, 2))
def test_a_nan_neither_dominates_nor_is_dominated(a: tuple[float, ...], b: tuple[float, ...], place: int) -> None:
    torn = (*a[:place], math.nan, *a[place + 1 :])
    assert not dominates(torn, b)
    assert not dominates(b, torn)


def test_the_front_of_nothing_is_empty() -> None:
    assert pareto_front([]) == []


cells = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=8)


def counted(points: list[tuple[float, float]]) -> int:
    """Written apart: the unit squares below (5, 5) that some point dominates."""
    return sum(any(x <= i and y <= j for x, y in points) for i in range(5) for j in range(5))


@given(cells)
def test_the_hypervolume_is_the_area_that_is_dominated(points: list[tuple[float, float]]) -> None:
    """Points beyond the reference point add nothing."""
    assert hypervolume(points, (5.0, 5.0)) == counted(points)


@given(cells, cells)
def test_an_improvement_is_what_one_point_adds(
    points: list[tuple[float, float]], candidates: list[tuple[float, float]]
) -> None:
    added = improvements(np.array(candidates, dtype=float).reshape(-1, 2), points, (5.0, 5.0))
    assert added.tolist() == [counted([*points, candidate]) - counted(points) for candidate in candidates]


def test_a_point_that_is_nowhere_better_adds_nothing() -> None:
    assert improvements(np.array([[1.0, 1.0], [0.5, 2.0]]), [(1.0, 1.0)], (2.0, 3.0)).tolist() == pytest.approx(
        [0.0, 0.5]
    )


@given(st.lists(st.tuples(values, values), max_size=12))
def test_two_objectives_have_a_faster_way_to_the_same_front(points: list[tuple[float, float]]) -> None:
    assert sorted(lower_left(points)) == pareto_front(points)
    assert [points[i][0] for i in lower_left(points)] == sorted(points[i][0] for i in lower_left(points))
