"""The winner's curse: measured by the finalists, told by the report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paredown.search.outcome.outcome import Comparison, Outcome, Refit, Survival
from paredown.search.report.report import write_report
from paredown.search.report.verdict import verdict
from paredown.search.report.winners_curse import survival_section, survival_words
from paredown.space.site import Inventory
from shared.made_study import make_study
from tests.search.finalists.test_finalists import decided, outcome_of, trials

NOISE = (0.9, 1.1, 1.0, 1.0)


def searched(*origins: str) -> Outcome:
    """Trials that lose 1, 2, ... on the search set; the first is better in each sequence, not equally so."""
    records = trials(*origins)
    return outcome_of(
        tuple(
            replace(record, sequences=tuple(record.loss * (n if record.number == 0 else 1) for n in NOISE))
            for record in records
        )
    )


def test_both_sets_are_paired_with_the_solvers_plan() -> None:
    """As the trials had it, not in order; on the search set by sequence, on the selection set by document."""
    outcome, _ = decided(searched("frontier", "frontier", "solver"), {0: 2.4, 1: 2.0, 2: 3.0}, {0: 0.5, 2: 0.5})
    found = outcome.survival
    assert found is not None
    assert found.number == 0
    assert found.search.number == found.fresh.number == 2
    assert found.search.mean == pytest.approx(1 / 3)
    assert 0.9 / 3 <= found.search.low < found.search.mean < found.search.high <= 1.1 / 3
    assert found.fresh.mean == pytest.approx(0.8)
    assert 0.7 < found.fresh.low < 0.8 < found.fresh.high < 0.9


@pytest.mark.parametrize("origins", [("solver", "frontier"), ("uniform", "frontier")])
def test_where_the_trials_gained_nothing_nothing_is_told(origins: tuple[str, ...], tmp_path: Path) -> None:
    """Nor where there is no plan of the solver within the budget; what is found is read again as it was written."""
    outcome, _ = decided(searched(*origins))
    assert outcome.survival is None
    assert survival_words(outcome) == ""
    other, _ = decided(searched("frontier", "solver"))
    for each in (outcome, other):
        each.write(tmp_path)
        assert Outcome.read(tmp_path).survival == each.survival
    assert other.survival is not None


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
    records = made.records[:7]
    comparisons = [Comparison(number=0, mean=mean, low=mean - 0.01, high=mean + 0.01) for mean in (0.92, fresh)]
    survival = Survival(number=6, search=comparisons[0], fresh=comparisons[1])
    outcome = replace(made, records=records, stopped_early=2, survival=survival)
    pattern = words.replace("%)", r"%\)")
    assert re.search(pattern, survival_words(outcome))
    write_report(outcome, tmp_path, draw=False)
    assert survival_words(outcome) in (tmp_path / "report.md").read_text()
    assert (survival_words(outcome) in verdict(outcome)) == luck


def test_finalists_stand_beside_the_solvers_plan(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """Losses on both sets, as the trials had the plans, and over the solver's."""
    made = make_study(tmp_path, inventory("llama"))
    solver, rival = made.records[0], made[next(number for number in made.selection if number)]
    outcome = replace(made, refits={rival.number: Refit(alone=solver.loss * 3, in_order=solver.loss)})
    section = survival_section(outcome)
    assert section.table is not None
    head, rows = section.table
    assert head[-2:] == ["over trial 0, the solver's: search set", "fresh texts"]
    assert [row[0].partition(":")[0] for row in rows] == ["0", str(rival.number)]
    assert rows[1][1:] == [f"{rival.loss:.4g}", f"{solver.loss * 3:.4g}", f"{rival.loss / solver.loss:.3f}", "3.000"]
    assert survival_section(replace(made, selection={})).table is None
