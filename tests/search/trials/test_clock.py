"""The limit of a run, and when it began."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from datetime import datetime

import pytest

from paredown.search.trials.clock import Clock, OutOfTime, seconds_until
from paredown.space.study_file import StudyFile


def test_the_earlier_limit_counts() -> None:
    """A timeout from the beginning of the run, a time of day from now; without either there is none."""
    now = time.monotonic()
    assert Clock.of(StudyFile(model="m"), now).ends == math.inf
    assert Clock.of(StudyFile(model="m", timeout=60), now - 20).left() == pytest.approx(40, abs=1)
    both = StudyFile(model="m", timeout=10 * 86400, until="07:00")
    assert 0 < Clock.of(both, now).left() <= 86400
    assert Clock.of(both.model_copy(update={"timeout": 1e-3}), now).left() <= 1e-3


def test_a_time_of_day_is_the_next_one() -> None:
    evening = datetime(2026, 1, 31, 22, 30)
    assert seconds_until("07:00", evening) == 8.5 * 3600
    assert seconds_until("22:31", evening) == 60
    assert seconds_until("22:30", evening) == 86400


def test_a_clock_has_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing at the limit; without a limit any time."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    clock = Clock(ends=130.0)
    assert clock.has(30)
    assert not clock.has(31)
    clock.check()
    with pytest.raises(OutOfTime):
        Clock(ends=100.0).check()
    assert Clock().has(1e9)
    assert clock.is_limited
    assert not Clock().is_limited


def test_a_process_knows_when_it_began() -> None:
    """Before its imports: what they take is a part of the limit."""
    script = "import time; time.sleep(0.5); from paredown.search.trials.clock import process_began; "
    script += "print(time.monotonic() - process_began())"
    started = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 0.5 <= age <= time.monotonic() - started
