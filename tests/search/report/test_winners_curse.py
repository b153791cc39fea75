"""The winner's curse: measured by the finalists, stated in the report."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from paredown.search.outcome.decision import Comparison, Refit, Survival
from paredown.search.outcome.front_file import read_front_file, write_front_file
from paredown.search.report.report import write_report
from paredown.search.report.verdict import verdict
from paredown.search.report.winners_curse import survival_section, survival_words
from paredown.space.site import Inventory
from shared.made_study import changed, make_study
from tests.search.finalists.test_decide import decided
from tests.search.finalists.test_survival import searched


@pytest.mark.parametrize("origins", [("solver", "frontier"), ("uniform", "frontier")])
def test_where_the_trials_gained_nothing_nothing_is_told(origins: tuple[str, ...], tmp_path: Path) -> None:
    """Nor if the solver has no plan within the budget; the finding reads back as it was written."""
    outcome, _ = decided(searched(*origins))
    assert outcome.decision.survival is None
    assert survival_words(outcome) == ""
    other, _ = decided(searched("frontier", "solver"))
    for each in (outcome, other):
        write_front_file(each, tmp_path)
        assert read_front_file(tmp_path).decision == each.decision
    assert other.decision.survival is not None


@pytest.mark.parametrize(
    ("fresh", "words", "luck"),
    [
        (
            0.96,
            "The trials gained 8.0 % .* among 9 plans; 4.0 % are left .* 3.0 to 5.0 %): 50 % of the gain did not",
            False,
        ),
        (0.91, "9.0 % are left on fresh texts .*: all of it survived", False),
        (0.995, "0.5 % are left on fresh texts .* -0.5 to 1.5 %): 94 % of the gain did not survive", True),
        (1.02, "-2.0 % are left on fresh texts .*: none of the gain survived", True),
    ],
)
def test_the_share_that_was_luck_is_said(
    fresh: float, words: str, luck: bool, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """In the report always; in the verdict where fresh texts see no gain beyond the interval."""
    made = make_study(tmp_path, inventory("llama"))
    trials = made.trials.measured[:7]
    comparisons = [Comparison(number=0, mean=mean, low=mean - 0.01, high=mean + 0.01) for mean in (0.92, fresh)]
    survival = Survival(number=6, search=comparisons[0], fresh=comparisons[1])
    outcome = changed(made, measured=trials, stopped_early=2, survival=survival)
    pattern = words.replace("%)", r"%\)")
    assert re.search(pattern, survival_words(outcome))
    write_report(outcome, tmp_path, draw=False)
    assert survival_words(outcome) in (tmp_path / "report.md").read_text()
    assert (survival_words(outcome) in verdict(outcome)) == luck


def test_finalists_stand_beside_the_solvers_plan(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """Losses on both sets, as the trials had the plans, and over the solver's."""
    made = make_study(tmp_path, inventory("llama"))
    solver, rival = made.trials.measured[0], made.trials[next(number for number in made.decision.selection if number)]
    outcome = changed(made, refits={rival.number: Refit(alone=solver.loss * 3, in_order=solver.loss)})
    section = survival_section(outcome)
    assert section.table is not None
    head, rows = section.table
    assert head[-2:] == ["over trial 0, the solver's: search set", "fresh texts"]
    assert [row[0].partition(":")[0] for row in rows] == ["0", str(rival.number)]
    assert rows[1][1:] == [f"{rival.loss:.4g}", f"{solver.loss * 3:.4g}", f"{rival.loss / solver.loss:.3f}", "3.000"]
    assert survival_section(changed(made, selection={})).table is None
