"""What a trial costs beside its forward passes, on a pico model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.overhead import PARTS, PROPOSALS, Overhead, measure_overhead, moved, prepared
from paredown.space.budget import Budget
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile, Tokens
from shared import toys

TRIALS = 3
TOKENS = Tokens(calibration=256, search=512, selection=256, held_out=512, sequence_length=32)


def test_every_part_of_every_trial_is_timed(pico: Callable[[str], Path], tmp_path: Path) -> None:
    """The parts do not take longer than the whole, and the whole is more than the forward passes."""
    data = [str(toys.write_text(tmp_path / "text.txt", toys.passages(120)))]
    study = StudyFile(model=str(pico("llama")), data=data, budget=Budget.parse("40%"), latency="off", tokens=TOKENS)
    overhead = measure_overhead(*prepared(study, tmp_path), tmp_path, TRIALS)
    assert {name: len(values) for name, values in overhead.seconds.items()} == dict.fromkeys(
        [*PARTS, "trial"], TRIALS + 1
    )
    for trial, whole in enumerate(overhead.seconds["trial"]):
        assert 0 < sum(overhead.seconds[part][trial] for part in PARTS) < whole
    assert min(overhead.shares) > 0
    assert len(overhead.proposals) == PROPOSALS


def test_the_share_is_of_the_forward_passes() -> None:
    assert Overhead(seconds={"trial": [3.0], "forward passes": [2.0]}, proposals=[]).shares == [0.5]


@pytest.mark.parametrize("sites", [1, 3])
def test_so_many_sites_are_moved(sites: int) -> None:
    """No more and no fewer decide otherwise than before."""
    space = toys.toy_space()
    before = Plan()
    after = moved(space, before, sites, np.random.default_rng(0))
    changed = set(after.decided(space.inventory)) - set(before.decided(space.inventory))
    assert len(changed) == sites
