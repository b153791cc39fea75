"""Trials end early where going on is not worth it, at the same trial whatever interrupted them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paredown.evaluators.quality import Quality
from paredown.search.samplers import Problem, Proposal
from paredown.search.trial import Expectation, Reading, Trial
from paredown.search.trials.patience import PLAIN, PROPOSALS, Patience, paired_error
from paredown.search.trials.race import Race
from paredown.search.trials.trial_log import TrialLog
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from paredown.studies import with_an_end
from shared import toys

SPACE = toys.toy_space(blocks=3, choices={"linear": [f"quantize bits={bits}" for bits in (2, 3, 4, 6, 8)]})
PROBLEM = replace(toys.problem_of(SPACE, share=0.4), sequences=16)
PLANS = list(itertools.islice((plan for plan in toys.all_plans(toys.toy_space())), 200))


def trial(
    number: int, loss: float, *, gain: float | None = None, spread: float = 0.0, size: int = 1, read: int = 16
) -> Trial:
    """A trial whose even sequences lose more than its odd ones by so great a share on both sides."""
    parts = tuple(loss * (1 + spread * (-1) ** place) for place in range(read))
    trial = replace(toys.trial_of(SPACE, Plan(), loss, number), plan=PLANS[number], size_bytes=size)
    return replace(trial, read=Reading(sequences=parts, whole=read == 16), expected=Expectation(gain=gain))


def ended(
    asked: str | int,
    history: Sequence[Trial],
    problem: Problem = PROBLEM,
    first: int = 1,
    failed: Sequence[int] = (),
) -> bool:
    return bool(Patience(asked=asked, problem=problem, first=first).ended(history, failed))


def test_the_paired_error_is_the_spread_of_the_log_ratio() -> None:
    """Over many draws of the sequences; what two plans have in common cancels, however much it varies."""
    generator = np.random.default_rng(0)
    common, own, other = generator.lognormal(0, 1, (4000, 40)), *generator.lognormal(0, 0.1, (2, 4000, 40))
    logs = np.log((common * own).sum(1) / (common * other).sum(1))
    told = [
        paired_error(a.tolist(), b.tolist(), 40)
        for a, b in zip((common * own)[:400], (common * other)[:400], strict=True)
    ]
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(logs.std(), rel=0.1)


def test_a_rung_tells_the_error_of_the_whole_set() -> None:
    """A plan that was read on a quarter is paired with the same quarter of the other."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.lognormal(0, 0.1, (2, 4000)).tolist()
    whole = paired_error(ours, theirs, 4000)
    assert paired_error(ours[:1000], theirs, 4000) == pytest.approx(whole, rel=0.1)
    assert (
        paired_error(ours[:1], theirs, 4000)
        == paired_error([0.0, 0.0], theirs, 4000)
        == paired_error((), (), 4000)
        == 0.0
    )


@pytest.mark.parametrize("read", [16, 8])
def test_auto_ends_when_all_promises_are_below_the_noise(read: int) -> None:
    """Sixteen sequences that differ by s on both sides have an error of s / sqrt(15); half of them tell the same."""
    error = 0.1 / np.sqrt(15) if read == 16 else 0.1 / np.sqrt(14)
    for factor in (0.95, 1.05):
        gain = factor * error / PROPOSALS
        history = [trial(0, 1.0), *(trial(n, 1.2, gain=gain, spread=0.1, read=read) for n in range(1, PROPOSALS + 1))]
        assert ended("auto", history) == (factor < 1)
        old = [replace(trial, number=trial.number + 1) for trial in history[1:]]
        assert ended("auto", [history[0], trial(1, 1.2, gain=1.0), *old]) == (factor < 1)  # of the latest alone
        assert not ended("auto", history[:-1])
        assert not ended("auto", [*history[:-1], trial(PROPOSALS, 1.2, gain=1.0, spread=0.1)])


def test_of_the_best_plan_itself_the_next_best_is_the_rival() -> None:
    """Else a plan that was just found would have no noise, and a promise of nothing would not be below it."""
    gain = 0.97 * 0.1 / np.sqrt(15) / PROPOSALS
    history = [
        trial(0, 1.0),
        trial(1, 0.9, gain=gain, spread=0.1),
        *(trial(n, 1.2, gain=gain) for n in range(2, PROPOSALS + 1)),
    ]
    assert ended("auto", history)


@pytest.mark.parametrize("asked", ["auto", 7])
def test_a_count_of_trials_without_a_better_plan(asked: str | int) -> None:
    """In whole trials: those on a quarter of the set are a quarter, one that failed is a whole one.

    The first count from the sampler's first, and auto counts where the sampler promises nothing.
    """
    most = PLAIN if asked == "auto" else int(asked)
    seeds = [trial(number, 1.0 + number) for number in range(3)]
    short = [trial(3 + number, 2.0, read=4) for number in range(4 * (most - 1))]
    failed = 3 + len(short)
    assert not ended(asked, [*seeds, *short], first=3)
    assert not ended(asked, [*seeds, *short[:-1]], first=3, failed=[failed])
    assert ended(asked, [*seeds, *short], first=3, failed=[failed])


def test_only_what_is_better_beyond_the_error_counts() -> None:
    """Small steps add up against the plan that was the last to count."""
    step = 0.04  # the error of a spread of 0.2 is 0.2 / sqrt(15) = 0.052
    within = [trial(0, 1.0), trial(1, np.exp(-step), spread=0.2), *(trial(n, 2.0) for n in range(2, 4))]
    assert ended(3, within)
    creeping = [*within[:2], trial(2, np.exp(-2 * step), spread=0.2), trial(3, 2.0)]
    assert not ended(3, creeping)
    assert ended(3, [*creeping, trial(4, 2.0), trial(5, 2.0)])


def test_what_does_not_fit_is_no_better_plan() -> None:
    """Nor a rival; along the front any plan counts that beats all that are no larger."""
    budget = PROBLEM.budget_bytes
    larger = [trial(0, 1.0), trial(1, 2.0), trial(2, 0.5, size=budget + 1), trial(3, 2.0)]
    assert ended(3, larger)
    front = replace(PROBLEM, focus="front")
    assert not ended(3, larger, front)
    assert not ended(3, [*larger, trial(4, 0.8, size=2), trial(5, 2.0)], front)
    assert ended(3, [*larger, trial(4, 0.6, size=budget + 2), trial(5, 0.7, size=budget + 1)], front)


class Noisy:
    """Measures plans whose sequences differ from each other, each in its own way."""

    def __init__(self, stop: int | None = None) -> None:
        self.asked, self.stop = 0, stop

    def __call__(self, plan: Plan, sequences: int | None) -> Quality:
        if self.asked == self.stop:
            raise KeyboardInterrupt
        self.asked += 1
        generator = np.random.default_rng(sum(map(ord, str(plan))))
        parts = (0.01 + toys.sum_of(SPACE, plan, PROBLEM.losses)) * generator.lognormal(0, 0.2, 16)[:sequences]
        quality = toys.quality_of(float(parts.mean()))
        return replace(quality, sequences=tuple(parts.tolist()))


def searched(path: Path, patience: str | int, stop: int | None = None) -> Race:
    solved = Proposal(plan=PROBLEM.solver.solve(PROBLEM.losses, PROBLEM.budget_bytes), label="")
    seeds = [("solver", solved), ("uniform", Proposal(plan=PROBLEM.solver.smallest(), label=""))]
    race = Race(TrialLog(path, with_latency=False), PROBLEM, "frontier", seeds, Noisy(stop), lambda plan: None)
    race.run(trials=60, finished=lambda trial: None, patience=patience)
    return race


@pytest.mark.parametrize("patience", ["auto", 3])
def test_an_interrupted_study_ends_at_the_same_trial(tmp_path: Path, patience: str | int) -> None:
    """And says the same; going on without patience goes on."""
    through = searched(tmp_path / "through.db", patience)
    assert ("expected gains" if patience == "auto" else "3 trials brought no plan") in through.ended
    assert through.spent < 60
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed.db", patience, stop=len(through.history) - 1)
    again = searched(tmp_path / "killed.db", patience)
    assert [trial.plan for trial in again.history.values()] == [trial.plan for trial in through.history.values()]
    assert again.ended == through.ended
    assert searched(tmp_path / "killed.db", patience, stop=0).ended == through.ended  # nothing is left to measure
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed.db", "off", stop=0)


def test_patience_in_a_study_file(tmp_path: Path) -> None:
    """``off`` needs no quotes.

    Patience is an end, and no part of the question; a number of it is the only end that needs no count of trials.
    """
    path = tmp_path / "study.yaml"
    for text, expected in (("auto", "auto"), ("off", "off"), ("12", 12), ('"12"', 12)):
        path.write_text(f"model: m\npatience: {text}\nlatency: off\n")
        study = StudyFile.read(path)
        assert (study.patience, study.latency) == (expected, "off")
        assert (with_an_end(study).trials is None) == (expected == 12)
        assert study.fixed_settings() == StudyFile(model="m", latency="off").fixed_settings()
    for text in ("0", "-1", "soon", "true", "1.5"):
        path.write_text(f"model: m\npatience: {text}\n")
        with pytest.raises(
            StudyError, match="study.yaml:2: patience: expected auto, off, or a number of trials of at least 1, got"
        ):
            StudyFile.read(path)
