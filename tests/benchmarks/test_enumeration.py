"""Every plan of a small space, measured: the same as one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contest import Contest, Task
from benchmarks.enumeration import Enumeration, Enumerator
from benchmarks.known_front import Truth
from paredown.search.workbench.workbench import Workbench
from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile
from shared import toys

STUDY = {
    "latency": "off",
    "tokens": {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32},
    "space": {
        "ties": [["q_proj", "k_proj", "v_proj", "o_proj"]],
        "choices": {
            "linear": ["quantize bits=2 group_size=channel", "quantize bits=4 group_size=channel", "keep"],
            "embedding": ["quantize bits=8"],
            "ffn": ["drop"],
            "attention": [],
            "block": ["drop"],
        },
        "overrides": [{"match": "re:.*(gate|up)_proj", "choices": ["quantize bits=4 group_size=channel"]}],
        "max_drops": 1,
    },
}


@pytest.fixture(scope="module")
def bench(pico: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    root = tmp_path_factory.mktemp("enumeration")
    study = {**STUDY, "model": str(pico("llama")), "data": [str(toys.write_text(root / "text.txt"))]}
    bench = Workbench.open(StudyFile.model_validate(study), root / "bank", workers=1)
    bench.fill_bank()
    return bench


@pytest.fixture(scope="module")
def every(bench: Workbench) -> Enumeration:
    return Enumerator(bench).run()


def test_every_plan_is_there_once(bench: Workbench, every: Enumeration) -> None:
    """Two blocks, each dropped, whole or without its feed-forward network; at most one drop."""
    enumerator = Enumerator(bench)
    plans = [enumerator.plan(codes) for codes in every.codes]
    whole, without = 9, 3
    assert len(set(plans)) == len(plans) == whole * whole + 2 * whole * (without + 1)
    assert all(bench.space.allows(plan) for plan in plans)
    assert every.sizes.tolist() == [plan.size_bytes(bench.space.inventory) for plan in plans]


def test_losses_are_those_of_the_plans_one_by_one(bench: Workbench, every: Enumeration) -> None:
    enumerator = Enumerator(bench)
    for index in np.random.default_rng(0).choice(len(every.losses), 12, replace=False):
        assert every.losses[index] == pytest.approx(
            bench.evaluator.measure(enumerator.plan(every.codes[index])).mean, rel=1e-4
        )


def test_the_true_front_is_what_nobody_beats(every: Enumeration) -> None:
    """All of it has the whole hypervolume; fewer plans have less."""
    truth = Truth.of(every)
    points = list(zip(every.sizes.tolist(), every.losses.tolist(), strict=True))
    for size, loss in truth.front:
        assert not any(s <= size and other < loss or s < size and other <= loss for s, other in points)
    assert truth.share(points) == pytest.approx(1)
    shares = [truth.bound(count) for count in (1, 3, len(truth.front))]
    assert 0 < shares[0] < shares[1] <= shares[2] == pytest.approx(1)


def test_a_space_that_is_too_large_is_refused(bench: Workbench) -> None:
    enumerator = Enumerator(bench)
    enumerator.combinations = [list(itertools.product(range(9), repeat=5)), list(itertools.product(range(9), repeat=5))]
    with pytest.raises(StudyError, match=r"has 3,486,784,401 plans; pin sites until there are 1,048,576 at most"):
        enumerator.run()


def test_samplers_are_held_against_the_truth(bench: Workbench, every: Enumeration) -> None:
    """The cost counts sensitivities, and measurements that another made before.

    Our sampler comes closer than chance.
    """
    contest, truth = Contest(bench), Truth.of(every)
    budget = int(np.median(every.sizes))
    shares = {}
    for name, seeded in (("random", False), ("frontier", True)):
        run = contest.run(Task(engine=name, evaluations=24, focus="front", budget=f"{budget}B", seed=0))
        assert run.spent[0] == pytest.approx(1 + seeded * contest.sensitivity_cost)
        assert 23 < run.spent[-1] <= 24
        shares[name] = truth.share(run.points(24))
        assert run.loss(24, budget) >= 0.999 * truth.at(budget)
    assert shares["random"] < shares["frontier"] <= 1 + 1e-9


def test_a_front_is_read_for_the_model_and_texts_that_it_was_measured_on(
    bench: Workbench, every: Enumeration, tmp_path: Path
) -> None:
    path, truth = tmp_path / "front.json", Truth.of(every)
    truth.write(path, "problem.yaml", bench)
    assert Truth.read(path, bench) == truth
    path.write_text(path.read_text().replace(bench.banks.origin.weights, "0" * 64))
    with pytest.raises(
        StudyError, match="measured on other weights or texts; name the same model and data, or measure it again"
    ):
        Truth.read(path, bench)
