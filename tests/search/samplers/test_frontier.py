"""Our own sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import optuna
import pytest
from scipy.stats import norm

from paredown.search.pareto import hypervolume
from paredown.search.samplers import Problem, Proposal, samplers
from paredown.search.solver.solver import Losses, Solver
from paredown.search.surrogate.gaussian_process import Surrogate
from paredown.search.trial import Reading, Trial
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space(blocks=3, choices={"linear": [f"quantize bits={bits}" for bits in (2, 3, 4, 6, 8)]})
PROBLEM = toys.problem_of(SPACE, share=0.35)


def begun(number: int) -> optuna.Trial:
    """A trial that has begun; the sampler reads only its number."""
    return cast(optuna.Trial, optuna.trial.FixedTrial({}, number))


def truth(seed: int = 2) -> toys.Losses:
    """A world that is not what was predicted."""
    generator = np.random.default_rng(seed)
    return {pair: loss * generator.lognormal(0, 0.6) for pair, loss in PROBLEM.losses.items()}


def history(length: int, *, problem: Problem = PROBLEM, seeds: Sequence[Plan] = ()) -> list[Trial]:
    """Trials of the plans that are proposed; the sequences of a plan lose unequally."""
    sampler, true = samplers["frontier"](problem), truth()
    trials: list[Trial] = []
    for number in range(length):
        proposal = (
            Proposal(plan=seeds[number], label="") if number < len(seeds) else sampler.propose(begun(number), trials)
        )
        loss = toys.sum_of(SPACE, proposal.plan, true) + 1e-4
        generator = np.random.default_rng(len(str(proposal.plan)))
        parts = loss * generator.lognormal(0, 0.1, problem.sequences)
        read = tuple(parts[: proposal.sequences].tolist())
        trial = toys.trial_of(SPACE, proposal.plan, float(np.mean(read)), number)
        trials.append(replace(trial, read=Reading(sequences=read, whole=len(read) == problem.sequences)))
    return trials


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return history(40)


def test_no_plan_is_proposed_twice(trials: list[Trial]) -> None:
    assert len({trial.plan for trial in trials}) == len(trials)
    assert all(SPACE.allows(trial.plan) for trial in trials)


def test_it_follows_from_seed_number_and_history(trials: list[Trial]) -> None:
    """A new sampler proposes the same; another seed proposes other plans."""

    def proposals(seed: int) -> list[Proposal]:
        return [
            samplers["frontier"](replace(PROBLEM, seed=seed)).propose(begun(n), trials[:n]) for n in range(0, 40, 5)
        ]

    assert proposals(0) == proposals(0) != proposals(1)
    assert [proposal.plan for proposal in proposals(0)] == [trial.plan for trial in trials[::5]]


def test_it_says_what_it_expects_to_gain(trials: list[Trial]) -> None:
    """The gain of a new plan for the budget shrinks as more is known.

    There is none without a plan to compare with, or along the front.
    """
    sampler = samplers["frontier"](PROBLEM)
    gains = [sampler.propose(begun(n), trials[:n]).expected_gain for n in range(40)]
    assert gains[0] is None
    told = [gain for gain in gains[1:] if gain is not None]
    assert len(told) == 39
    assert min(told) >= 0
    assert np.mean(told[-10:]) < np.mean(told[:10])
    front = samplers["frontier"](replace(PROBLEM, focus="front"))
    assert all(front.propose(begun(n), trials[:n]).expected_gain is None for n in range(0, 40, 10))


def test_all_effort_goes_to_the_budget(trials: list[Trial]) -> None:
    """As long as there is something new, and the plans found are better than the first."""
    sizes = np.array([trial.size_bytes for trial in trials[:12]])
    assert (sizes <= PROBLEM.budget_bytes).all()
    assert sizes.min() > 0.7 * PROBLEM.budget_bytes
    assert min(trial.loss for trial in trials) < trials[0].loss


def test_the_whole_front_is_covered() -> None:
    """Better than by as many random plans."""
    problem = replace(PROBLEM, focus="front")
    ends = [PROBLEM.solver.smallest(), PROBLEM.solver.solve(PROBLEM.losses, SPACE.inventory.original_bytes)]
    found = history(30, problem=problem, seeds=ends)
    generator = np.random.default_rng(0)
    corner = (float(max(r.size_bytes for r in found)) + 1, float(np.log(max(r.loss for r in found))) + 1)

    def volume(trials: list[Trial]) -> float:
        return hypervolume([(trial.size_bytes, float(np.log(trial.loss))) for trial in trials], corner)

    budgets = generator.uniform(ends[0].size_bytes(SPACE.inventory), corner[0], 30).astype(int).tolist()
    drawn = [
        PROBLEM.solver.solve({pair: generator.lognormal() for pair in PROBLEM.losses}, budget) for budget in budgets
    ]
    random = [toys.trial_of(SPACE, plan, toys.sum_of(SPACE, plan, truth()) + 1e-4) for plan in [*ends, *drawn]]
    assert volume(found) > 1.1 * volume(random)
    assert len({trial.plan for trial in found}) == len(found)


def test_the_largest_steps_of_the_front_are_filled() -> None:
    """What is solved for under the mean lies within a step that leaves more room below it than most."""
    problem = replace(PROBLEM, focus="front")
    budgets = np.geomspace(
        problem.solver.size_bytes(problem.solver.smallest()), SPACE.inventory.original_bytes, 60
    ).astype(int)
    plans = problem.solver.front(truth(), budgets.tolist())
    trials = [toys.trial_of(SPACE, plan, toys.sum_of(SPACE, plan, truth()) + 1e-4, n) for n, plan in enumerate(plans)]
    steps = sorted(
        pairwise(trials),
        key=lambda step: (step[0].size_bytes - step[1].size_bytes) * np.log(step[0].loss / step[1].loss),
    )
    large = [(lower.size_bytes, upper.size_bytes) for lower, upper in steps[: len(steps) // 2]]
    sampler = samplers["frontier"](problem)
    found = [sampler.propose(begun(len(trials) + n), trials) for n in range(30)]
    sizes = [
        proposal.plan.size_bytes(SPACE.inventory)
        for proposal in found
        if proposal.label == "solved under the posterior mean"
    ]
    assert len(sizes) > 5
    assert all(any(lower < size < upper for lower, upper in large) for size in sizes)


def test_the_solver_is_given_the_losses_of_its_budget(trials: list[Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a choice loses depends on how small the plan is."""
    sizes: dict[int, int] = {}
    solved: list[tuple[int, int]] = []
    expected, draw, solve = Surrogate.expected, Surrogate.draw, Solver.solve

    def noted(losses: dict[tuple[str, Choice], float], size: int) -> dict[tuple[str, Choice], float]:
        sizes[id(losses)] = size
        kept.append(losses)
        return losses

    def solving(solver: Solver, losses: Losses, budget: int) -> Plan:
        if id(losses) in sizes:
            solved.append((budget, sizes[id(losses)]))
        return solve(solver, losses, budget)

    kept: list[Losses] = []
    monkeypatch.setattr(Surrogate, "expected", lambda self, size: noted(expected(self, size), size))
    monkeypatch.setattr(Surrogate, "draw", lambda self, generator, size: noted(draw(self, generator, size), size))
    monkeypatch.setattr(Solver, "solve", solving)
    samplers["frontier"](replace(PROBLEM, focus="front")).propose(begun(40), trials)
    assert len({budget for budget, _ in solved}) > 4
    assert all(budget == size for budget, size in solved)


def test_a_plan_climbs_the_rungs() -> None:
    """Candidates are measured on a quarter of the sequences; those that may be the best, on all of them."""
    problem = replace(PROBLEM, sequences=16)
    found = history(40, problem=problem)
    short = [trial for trial in found if not trial.read.whole]
    whole = [trial for trial in found if trial.read.whole]
    assert {len(trial.read.sequences) for trial in short} == {4}
    assert len(whole) < len(short)
    promoted = [trial for trial in whole if any(trial.plan == other.plan for other in short)]
    assert promoted
    climb = samplers["frontier"](problem).propose(begun(promoted[0].number), found[: promoted[0].number])
    assert (climb.plan, climb.expected_gain) == (promoted[0].plan, None)  # that was said when the plan was new
    assert min(trial.loss for trial in promoted) < 1.1 * min(trial.loss for trial in found)
    assert len({(trial.plan, trial.read.whole) for trial in found}) == len(found)


@pytest.mark.parametrize(("chance", "climbs"), [(0.05, False), (0.12, False), (0.3, True), (0.6, True)])
def test_a_plan_climbs_if_it_is_likely_enough_to_be_better(chance: float, climbs: bool) -> None:
    """One chance in ten to beat the best plan is not worth a whole trial, one in three is.

    What the rung tells of the whole set scatters as it does among plans that were measured on both.
    """
    problem = replace(PROBLEM, sequences=16)
    plans = problem.solver.front(truth(), (np.linspace(0.6, 1.0, 30) * problem.budget_bytes).astype(int).tolist())
    scatter = np.tile([0.1, -0.1], 4)
    trials = []
    for number, (plan, shift) in enumerate(zip(plans, scatter, strict=False)):
        parts = (*[1.0 + 0.01 * number] * 4, *[float((4 * np.exp(shift) - 1) / 3 * (1.0 + 0.01 * number))] * 12)
        trials.append(replace(toys.trial_of(SPACE, plan, float(np.mean(parts)), number), read=Reading(sequences=parts)))
    ratios = [np.log(trial.loss / sum(trial.read.sequences[:4])) for trial in trials]
    log_loss = np.log(min(trial.loss for trial in trials)) - np.std(ratios, ddof=1) * norm.ppf(chance)
    part = float(np.exp(log_loss - np.mean(ratios))) / 4
    low = replace(
        toys.trial_of(SPACE, plans[len(trials)], part, len(trials)), read=Reading(sequences=(part,) * 4, whole=False)
    )
    proposal = samplers["frontier"](problem).propose(begun(len(trials) + 1), [*trials, low])
    assert (proposal.plan == low.plan) == climbs


def test_an_exhausted_space_says_so() -> None:
    """Where every plan was measured, the best is solved again."""
    space = toys.toy_space(max_drops=0, choices={"linear": ["keep"], "ffn": ["keep"], "block": ["keep"]})
    problem = toys.problem_of(space, share=1.0)
    measured = [toys.trial_of(space, plan, 1.0, i) for i, plan in enumerate(toys.all_plans(space))]
    assert samplers["frontier"](problem).propose(begun(9), measured).label == "solved again"
