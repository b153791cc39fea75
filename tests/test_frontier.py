"""Our own sampler."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import optuna
import pytest
import toys

from paredown.search.record import Record
from paredown.search.samplers import Proposal, samplers
from paredown.search.samplers.frontier import FrontierSampler

SPACE = toys.toy_space(blocks=3, choices={"linear": [f"quantize bits={bits}" for bits in (2, 3, 4, 6, 8)]})
QUESTION = toys.question_of(SPACE, share=0.35)


def trial(number: int) -> optuna.Trial:
    """Of which the sampler reads the number alone."""
    return cast(optuna.Trial, optuna.trial.FixedTrial({}, number))


def history(length: int, seed: int = 0) -> list[Record]:
    """Measured in a world that is not what was predicted."""
    sampler = samplers["frontier"](QUESTION)
    generator = np.random.default_rng(seed)
    true = {pair: loss * generator.lognormal(0, 0.3) for pair, loss in QUESTION.losses.items()}
    records: list[Record] = []
    for number in range(length):
        plan = sampler.propose(trial(number), records).plan
        records.append(toys.record_of(SPACE, plan, toys.sum_of(SPACE, plan, true) + 1e-4, number))
    return records


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return history(40)


def test_no_plan_is_proposed_twice(records: list[Record]) -> None:
    assert len({record.plan for record in records}) == len(records)
    assert all(SPACE.allows(record.plan) for record in records)


def test_it_follows_from_seed_number_and_history(records: list[Record]) -> None:
    """Also from a sampler made anew; another seed proposes other plans."""

    def proposals(seed: int) -> list[Proposal]:
        return [samplers["frontier"](replace(QUESTION, seed=seed)).propose(trial(n), records[:n]) for n in range(0, 40, 5)]

    assert proposals(0) == proposals(0) != proposals(1)
    assert [proposal.plan for proposal in proposals(0)] == [record.plan for record in records[::5]]


def test_most_of_its_plans_are_within_the_budget_and_none_beyond_twice_that(records: list[Record]) -> None:
    sizes = np.array([record.size_bytes for record in records])
    assert (sizes <= 2 * QUESTION.budget_bytes).all()
    assert (sizes <= QUESTION.budget_bytes).mean() > 0.6
    assert (sizes <= QUESTION.budget_bytes).mean() < 1


def test_its_budgets_lie_between_the_smallest_plan_and_twice_the_asked() -> None:
    """Where the smallest plan is the only one, nothing smaller is asked of the solver."""
    sampler = FrontierSampler(QUESTION)
    generator = np.random.default_rng(0)
    drawn = [sampler._budget(generator) for _ in range(2000)]
    assert sampler.smallest <= min(drawn) < QUESTION.budget_bytes < max(drawn) <= 2 * QUESTION.budget_bytes
    assert np.mean(np.array(drawn) == QUESTION.budget_bytes) == pytest.approx(0.7, abs=0.05)
    only = toys.toy_space(max_drops=0, choices={"linear": ["keep"], "embedding": ["keep"], "ffn": ["keep"], "block": ["keep"]})
    stuck = FrontierSampler(toys.question_of(only, share=1.0))
    assert {stuck._budget(generator) for _ in range(200)} == {only.inventory.original_bytes}


def test_a_move_conserves_the_bytes(records: list[Record]) -> None:
    """One of the best measured plans with two sites changed at most, within the budget, never measured before."""
    sampler, known = FrontierSampler(QUESTION), {record.plan for record in records}
    fitting = sorted((r for r in records if r.size_bytes <= QUESTION.budget_bytes), key=lambda r: r.loss)[:4]
    parents = [dict(r.plan.decided(SPACE.inventory)) for r in fitting]
    for seed in range(20):
        moved = sampler._move(np.random.default_rng(seed), records, QUESTION.losses, QUESTION.budget_bytes, known)
        assert moved and moved not in known and SPACE.allows(moved)
        assert moved.size_bytes(SPACE.inventory) <= QUESTION.budget_bytes
        decided = dict(moved.decided(SPACE.inventory))
        assert any(decided.keys() == p.keys() and sum(decided[s] != p[s] for s in p) <= 2 for p in parents)


def test_an_exhausted_space_says_so() -> None:
    """Where every plan was measured, the best is solved again."""
    space = toys.toy_space(max_drops=0, choices={"linear": ["keep"], "ffn": ["keep"], "block": ["keep"]})
    question = toys.question_of(space, share=1.0)
    measured = [toys.record_of(space, plan, 1.0, i) for i, plan in enumerate(toys.all_plans(space))]
    assert samplers["frontier"](question).propose(trial(9), measured).label == "solved again"
