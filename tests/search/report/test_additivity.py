"""Whether losses add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paredown.search.report.additivity import additivity, additivity_section
from paredown.search.sensitivity.stored import read_sensitivity
from paredown.space.choice import KEEP, parse_choice
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.system.files import write_json
from shared.made_study import changed, make_study


def test_the_ratio_of_measured_and_predicted_is_told_along_the_front(
    inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """The made study's trials lose 1.2 times the sum of their sensitivities and 0.0001 more.

    Told are plans that no other beats, smallest first; plans with a choice that has no sensitivity are left out.
    """
    llama = inventory("llama")
    outcome = make_study(tmp_path, llama)
    stored = json.loads((tmp_path / "sensitivity.json").read_text())
    losses = {(site, choice): loss for site, choice, loss in stored["losses"]}
    found = additivity(outcome, tmp_path)
    assert found is not None
    known = [
        r
        for r in outcome.trials.measured
        if all(c == KEEP or (s.name, str(c)) in losses for s, c in r.plan.decided(llama))
    ]
    assert [trial for trial, _ in found.plans] == known
    for trial, predicted in found.plans:
        assert predicted == pytest.approx(sum(losses[s.name, str(c)] for s, c in trial.plan.decided(llama)))
    sizes = [trial.size_bytes for trial, _ in found.along_front]
    assert 1 < len(sizes) <= 6
    assert sizes == sorted(sizes)
    for trial, predicted in found.along_front:
        assert not any(other.size_bytes < trial.size_bytes and other.loss < trial.loss for other in known)
        assert trial.loss == pytest.approx(1.2 * predicted + 1e-4)
    strange = Plan.of(llama, {llama.leaves[1].name: parse_choice("quantize bits=2 group_size=2")})
    more = changed(
        outcome, measured=(*outcome.trials.measured, replace(outcome.trials.measured[0], plan=strange, number=99))
    )
    assert (again := additivity(more, tmp_path)) is not None and again.plans == found.plans


def test_the_report_says_it_in_one_line(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """Rank correlation and cost; of a folder without sensitivities, and of few plans, nothing."""
    outcome = make_study(tmp_path, inventory("llama"))
    path = tmp_path / "sensitivity.json"
    write_json(
        path,
        {
            **read_sensitivity(path).model_dump(),
            "estimator": "fisher",
            "forward_tokens": 12345,
            "backward_tokens": 4096,
        },
    )
    section = additivity_section(outcome, tmp_path)
    plans = len(additivity(outcome, tmp_path).plans)  # type: ignore[union-attr]
    assert section.paragraphs[0] == (
        "The sensitivities (fisher, which read 12,345 tokens forward and 4,096 backward) rank the "
        f"{plans} plans that they predict with Spearman's correlation 1.000."
    )
    assert section.table is not None
    for row in section.table[1]:
        assert float(row[5]) == pytest.approx(1.2 + 1e-4 / float(row[3]), abs=0.01)
    few = changed(outcome, measured=outcome.trials.measured[:1])
    assert len(additivity_section(few, tmp_path).paragraphs) == 1
    path.unlink()
    assert not additivity_section(outcome, tmp_path).paragraphs
