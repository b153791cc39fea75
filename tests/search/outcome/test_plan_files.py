"""Plan files of a study: those of the front and the best, and nothing that belongs to somebody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.search.outcome.front_file import FILE, read_front_file
from paredown.search.outcome.outcome import Outcome
from paredown.search.outcome.plan_files import publish, publish_plans
from paredown.space.errors import OutputError
from paredown.space.plan_file import BaseModelReference, PlanFile, Records
from paredown.space.site import Inventory
from shared.made_study import changed, make_study


@pytest.fixture
def llama(inventory: Callable[[str], Inventory]) -> Inventory:
    return inventory("llama")


def reference_in(folder: Path) -> BaseModelReference:
    return PlanFile.read(folder / "best" / "plan.yaml").base_model


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "front").iterdir()}


def without(outcome: Outcome, number: int) -> Outcome:
    """The outcome as if a trial had never been."""
    return changed(outcome, measured=tuple(trial for trial in outcome.trials.measured if trial.number != number))


def test_plans_that_left_the_front_are_removed(llama: Inventory, tmp_path: Path) -> None:
    """Also a folder that a killed search had made and not filled."""
    outcome = make_study(tmp_path, llama, state="searching")
    left = outcome.trials.front[-1].number
    assert f"{left:04d}" in names(tmp_path)
    (tmp_path / "front" / "12345").mkdir()
    later = without(outcome, left)
    publish_plans(later, reference_in(tmp_path), tmp_path)
    assert names(tmp_path) == {f"{trial.number:04d}" for trial in later.trials.front}


def test_what_others_put_into_front_stays(llama: Inventory, tmp_path: Path) -> None:
    """Files, folders, links, and a folder of ours that somebody put something into; they break nothing."""
    outcome = make_study(tmp_path, llama, state="searching")
    left = f"{outcome.trials.front[-1].number:04d}"
    front = tmp_path / "front"
    (front / ".DS_Store").write_text("")
    (front / "notes.txt").write_text("mine")
    (front / "0077").write_text("a file")
    (front / "mine").mkdir()
    (front / "mine" / "plan.yaml").write_text("my plan")
    (front / "0099").mkdir()
    (front / "0099" / "thesis.tex").write_text("years of work")
    (tmp_path / "elsewhere").mkdir()
    (front / "0055").symlink_to(tmp_path / "elsewhere")
    (front / left / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in front.rglob("*") if path.is_file()}
    publish_plans(without(outcome, outcome.trials.front[-1].number), reference_in(tmp_path), tmp_path)
    assert {path: path.read_bytes() for path in front.rglob("*") if path.is_file()} == before
    assert (front / "0055").is_symlink()
    assert (tmp_path / "elsewhere").is_dir()


def test_a_plan_of_another_database_is_overwritten(llama: Inventory, tmp_path: Path) -> None:
    """A trial's number says nothing where the trials were begun again; what is the same already is not written."""
    outcome = make_study(tmp_path, llama)
    path = tmp_path / "front" / f"{outcome.trials.front[0].number:04d}" / "plan.yaml"
    right = path.read_text()
    path.write_text((tmp_path / "front" / f"{outcome.trials.front[-1].number:04d}" / "plan.yaml").read_text())
    best = (tmp_path / "best" / "plan.yaml").stat().st_ino
    publish_plans(outcome, reference_in(tmp_path), tmp_path)
    assert path.read_text() == right
    assert (tmp_path / "best" / "plan.yaml").stat().st_ino == best


def test_the_mark_comes_last(llama: Inventory, tmp_path: Path) -> None:
    """Whatever cannot be written, ``front.json`` calls nothing finished whose plans or reports are not there."""
    searching = make_study(tmp_path, llama, state="searching")
    final = make_study(tmp_path / "other", llama)
    reference = reference_in(tmp_path)

    def full(outcome: Outcome, folder: Path) -> None:
        assert (
            PlanFile.read(folder / "best" / "plan.yaml").quality
            == PlanFile.read(tmp_path / "other/best/plan.yaml").quality
        )
        raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="the disk is full"):
        publish(final, reference, tmp_path, full, lambda trial: None)
    assert read_front_file(tmp_path) == searching
    publish(final, reference, tmp_path, lambda outcome, folder: None, lambda trial: None)
    assert (tmp_path / FILE).read_bytes() == (tmp_path / "other" / FILE).read_bytes()


def test_what_was_scored_stays_when_a_finished_study_is_published_again(llama: Inventory, tmp_path: Path) -> None:
    """The bank may be gone, or hold records of other libraries by then.

    A plan of other choices has digests of its own.
    """
    outcome = make_study(tmp_path, llama)
    reference, best = reference_in(tmp_path), tmp_path / "best" / "plan.yaml"

    def records(digest: str) -> Records:
        return Records(
            weights="w", config="c", versions={"torch": "2.13.0"}, machine="m", sha256={"model.embed_tokens": digest}
        )

    publish_plans(outcome, reference, tmp_path, lambda trial: records("0" * 16))
    publish_plans(outcome, reference, tmp_path, lambda trial: None)
    publish_plans(outcome, reference, tmp_path, lambda trial: records("1" * 16))
    assert PlanFile.read(best).records == records("0" * 16)
    other = next(trial for trial in outcome.trials.measured if trial.plan != outcome.best.plan)
    publish_plans(changed(outcome, winner=other.number), reference, tmp_path, lambda trial: records("1" * 16))
    assert PlanFile.read(best).records == records("1" * 16)
