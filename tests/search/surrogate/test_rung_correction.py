"""Losses measured on a part of the search set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paredown.search.surrogate.rung_correction import LEAST, SPREAD, likeliest, on_whole_set
from paredown.search.trial import Reading, Trial
from paredown.space.plan import Plan
from shared import toys

SPACE = toys.toy_space()


def trial(number: int, sequences: tuple[float, ...], *, whole: bool) -> Trial:
    """Each sequence has ten tokens."""
    made = toys.trial_of(SPACE, Plan(), sum(sequences) / len(sequences) / 10, number)
    return replace(made, read=Reading(sequences=sequences, whole=whole))


def test_a_rung_of_easy_sequences_is_carried_over() -> None:
    """The first sequence loses a tenth of the others in every plan."""
    whole = [
        trial(i, tuple(scale * x for x in (1.0, 10.0, 10.0, 10.0)), whole=True) for i, scale in enumerate((1, 2, 3, 4))
    ]
    logs, spreads = on_whole_set([*whole, trial(9, (5.0,), whole=False)])
    assert logs[:4] == pytest.approx(np.log([r.loss for r in whole]))
    assert logs[4] == pytest.approx(np.log(5 * 31 / 40))
    assert spreads.tolist() == pytest.approx([0, 0, 0, 0, 0], abs=1e-12)


def test_the_spread_is_that_of_the_whole_trials() -> None:
    """Until there are enough of them it is assumed."""
    generator = np.random.default_rng(0)
    whole = [trial(i, tuple(generator.lognormal(0, 0.3, 8)), whole=True) for i in range(40)]
    _, spreads = on_whole_set([*whole, trial(90, (1.0, 1.0), whole=False)])
    ratios = [np.log(sum(r.read.sequences) / sum(r.read.sequences[:2])) for r in whole]
    assert spreads[-1] == pytest.approx(np.std(ratios, ddof=1))
    _, few = on_whole_set([*whole[: LEAST - 1], trial(90, (1.0, 1.0), whole=False)])
    assert few[-1] == SPREAD


def test_the_likeliest_to_beat_the_best_is_promoted() -> None:
    """The lowest on its rung, with the loss that it is expected to have; nobody if all are far behind."""
    whole = [trial(i, (scale, scale * 2.0), whole=True) for i, scale in enumerate((1.0, 2.0, 3.0, 4.0, 5.0))]
    best = min(one.loss for one in whole)
    waiting = [trial(10 + i, (share,), whole=False) for i, share in enumerate((3.0, 0.5, 2.0))]
    found = likeliest(whole, waiting, best)
    assert found is not None
    assert found[0].number == 11
    assert found[1] == pytest.approx(best / 2)
    assert likeliest(whole, waiting[::2], best) is None
