"""What a person reads while a search goes on."""

from __future__ import annotations

import io
import itertools
import time

import pytest
from rich.console import Console

from paredown.cli.progress import Clock, Live, Plain
from paredown.search.trials.counts import plans_measured, worth
from shared import toys

SPACE = toys.toy_space()
RECORDS = [
    toys.trial_of(SPACE, plan, 1.0, number) for number, plan in enumerate(itertools.islice(toys.all_plans(SPACE), 4))
]


def test_a_count_never_exceeds_what_was_asked_for() -> None:
    """The last trial may read more than is left; a part of a trial is none.

    40 quarters are ten, also in floating point.
    """
    assert worth(60.75, 60) == worth(61.2, 60) == "60 of 60 trials' worth of tokens"
    assert worth(59.9, 60) == "59 of 60 trials' worth of tokens"
    assert worth(sum([0.1] * 10), 4) == "1 of 4 trials' worth of tokens"
    assert worth(80.4) == "80 trials' worth of tokens"
    assert plans_measured(61, 82, 0) == "61 plans measured on the whole search set, 82 stopped early"
    assert plans_measured(1, 0, 2) == "1 plan measured on the whole search set, 2 failed"


@pytest.mark.parametrize("live", [False, True])
def test_a_trial_says_the_count_its_number_and_the_time_left(live: bool) -> None:
    """The plan's number, the count as --help defines it, and the time left that the search expects."""
    file = io.StringIO()
    progress = (Live if live else Plain)(Console(file=file, width=200, force_terminal=live, color_system=None))
    with progress:
        progress.expect(185)
        progress.trial(RECORDS[3], RECORDS[0], 60.75, 60)
    said = file.getvalue()
    assert "60 of 60 trials' worth of tokens" in said
    assert "about 3 min left" in said
    assert "61" not in said
    assert live or "trial 3, " in said


def test_the_time_left_runs_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two trials, and never below nothing; unknown before the search expects anything."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock()
    assert clock.left() == ""
    clock.expect(50)
    now[0] = 20.0
    assert clock.left() == ", about 30 s left"
    now[0] = 90.0
    assert clock.left() == ", about 1 s left"
