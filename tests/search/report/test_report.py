"""Reports: there from the first trial on, whole, and honest in their words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from scipy.stats import norm

from paredown.search.outcome.decision import Decision, Refit
from paredown.search.report import pictures
from paredown.search.report.pictures import draw_front, save, short
from paredown.search.report.report import Reports, write_report
from paredown.search.report.verdict import summary_lines, verdict
from paredown.search.sensitivity.stored import read_sensitivity
from paredown.search.trial import Times
from paredown.space.choice import parse_choice
from paredown.space.site import Inventory
from paredown.space.system.files import write_json
from shared.made_study import changed, make_study

PICTURES = {"front.png", "choices.png", "sensitivity.png"}


@pytest.fixture
def llama(inventory: Callable[[str], Inventory]) -> Inventory:
    return inventory("llama")


def test_everything_is_written_and_self_contained(llama: Inventory, tmp_path: Path) -> None:
    """All files are there, nothing half-written beside them, and the page needs no other file."""
    outcome = make_study(tmp_path, llama)
    write_report(outcome, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.md", "report.html", "trials.csv"} | PICTURES <= names
    assert not [name for name in names if name.startswith(".")]
    for name in PICTURES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table["number"]) == [trial.number for trial in outcome.trials.measured]
    assert list(table["size_bytes"]) == [trial.size_bytes for trial in outcome.trials.measured]
    assert table["within_budget"].any()


def test_a_gain_is_stated_with_its_interval(llama: Inventory, tmp_path: Path) -> None:
    """The ratio, its interval over documents, the unit and all three sets are said."""
    outcome = make_study(tmp_path, llama, ratio=0.8)
    write_report(outcome, tmp_path, draw=False)
    text = (tmp_path / "report.md").read_text()
    assert "held-out loss is 0.800 of the best uniform plan's, 95 % interval 0.720 to 0.880 over 64 documents" in text
    assert "nats/token" in text
    assert "predicted, not measured" in text
    for name in ("| search |", "| selection |", "| held-out |"):
        assert name in text
    assert "uniform plan wins" not in text


def test_spreads_are_intervals_of_95_percent(llama: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval of a normal mean is in the table of sets, the front, the early verdict and the picture."""
    made = make_study(tmp_path, llama)
    outcome = changed(
        made, measured=tuple(replace(trial, standard_error=0.1 * trial.loss) for trial in made.trials.measured)
    )
    best, reach = outcome.best, 0.1 * float(norm.ppf(0.975))
    assert best is not None
    write_report(outcome, tmp_path, draw=False)
    text = (tmp_path / "report.md").read_text()
    row = re.search(r"\| search \| (\S+) \| (\S+) to (\S+) \|", text)
    assert row is not None
    ends = best.loss * np.array([1, 1 - reach, 1 + reach])
    assert [float(number) for number in row.groups()] == pytest.approx(ends, rel=2e-3)
    for trial in outcome.trials.front:
        assert f"| {trial.loss:.4g} ± {reach * trial.loss:.1g} |" in text
    assert f"± {reach * best.loss:.1g} nats/token on the search set" in verdict(
        replace(outcome, state="searching", decision=Decision())
    )
    drawn: list[Axes] = []
    monkeypatch.setattr("paredown.search.report.pictures.finish", lambda figure, axes, path: drawn.append(axes))
    draw_front(outcome, tmp_path / "front.png")
    bars = drawn[0].containers[0].lines[2][0].get_segments()  # type: ignore[attr-defined]  # of an ErrorbarContainer
    assert [bar[1][1] for bar in bars] == pytest.approx(
        [trial.loss * (1 + reach) for trial in outcome.trials.measured], rel=2e-3
    )


def test_no_gain_is_admitted(llama: Inventory, tmp_path: Path) -> None:
    """Where the interval reaches one, the report says that the uniform plan wins."""
    outcome = make_study(tmp_path, llama, ratio=0.95)
    assert outcome.decision.winner == outcome.decision.uniform
    write_report(outcome, tmp_path, draw=False)
    for name in ("report.md", "report.html"):
        assert "No significant gain: the uniform plan wins" in (tmp_path / name).read_text()
    assert any("the uniform plan wins" in line for line in summary_lines(outcome, tmp_path))


def test_what_compressing_in_order_brought_is_told(llama: Inventory, tmp_path: Path) -> None:
    """For each finalist: both losses, the change, the version that is kept, and the draws behind the interval."""
    outcome = make_study(tmp_path, llama)
    held_out = {number: replace(finding, draws=3) for number, finding in outcome.decision.held_out.items()}
    refits = {0: Refit(alone=0.1, in_order=0.08), 1: Refit(alone=0.2, in_order=0.21)}
    write_report(changed(outcome, refits=refits, held_out=held_out), tmp_path, draw=False)
    text = (tmp_path / "report.md").read_text()
    assert "| 0.1 | 0.08 | -20.0 % | in order |" in text
    assert "| 0.2 | 0.21 | +5.0 % | independently |" in text
    assert "rebuilt from 3 calibration draws" in text
    write_report(outcome, tmp_path, draw=False)
    assert "Compressed in order" not in (tmp_path / "report.md").read_text()


def test_blocks_are_listed_with_their_angles(llama: Inventory, tmp_path: Path) -> None:
    """Angles stand beside the loss without each block; without angles the table is left out."""
    outcome = make_study(tmp_path, llama)
    write_report(outcome, tmp_path, draw=False)
    assert "half turns" not in (tmp_path / "report.md").read_text()
    path = tmp_path / "sensitivity.json"
    stored = read_sensitivity(path)
    dropped = {
        site: loss
        for site, choice, loss in stored.losses
        if choice == "drop" and site in ("model.layers.0", "model.layers.1")
    }
    write_json(path, {**stored.model_dump(), "angular_distances": [0.25, 0.125]})
    write_report(outcome, tmp_path, draw=False)
    text = (tmp_path / "report.md").read_text()
    assert f"| model.layers.1 | 0.125 | {dropped['model.layers.1']:.4g} |" in text


def test_storage_only_savings_are_labelled(llama: Inventory, tmp_path: Path) -> None:
    """A plan with codebooks or unstructured sparsity says that these layers are no faster; another plan does not."""
    outcome = make_study(tmp_path, llama)
    best = outcome.best
    assert best is not None
    site = next(site for site in llama.leaves if site.kind == "linear")
    entries = dict(best.plan.entries)
    for method, text in (("cluster", "cluster clusters=16"), ("quantize", "quantize bits=4")):
        plan = type(best.plan).of(
            llama,
            {name: parse_choice("cast") for name in entries if name in {s.name for s in llama.leaves}}
            | {site.name: parse_choice(text)},
        )
        trials = tuple(replace(trial, plan=plan) if trial == best else trial for trial in outcome.trials.measured)
        write_report(changed(outcome, measured=trials), tmp_path, draw=False)
        assert ("Storage only (cluster)" in (tmp_path / "report.md").read_text()) == (method == "cluster")


@pytest.mark.parametrize("count", [1, 2])
def test_from_the_first_trial_on(count: int, llama: Inventory, tmp_path: Path) -> None:
    """One trial is enough for every file, in words that do not call it the winner."""
    outcome = make_study(tmp_path, llama, state="searching")
    outcome = changed(outcome, measured=outcome.trials.measured[:count])
    write_report(outcome, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "The best plan so far is trial 0" in text
    assert "the winner is not chosen yet" in text
    assert {path.name for path in tmp_path.iterdir()} >= PICTURES


def test_nothing_within_the_budget_yet(llama: Inventory, tmp_path: Path) -> None:
    """Trials that all exceed the budget are shown, and none is recommended."""
    outcome = make_study(tmp_path, llama, state="searching")
    outcome = changed(outcome, budget_bytes=1)
    write_report(outcome, tmp_path)
    assert "No measured plan is within the budget of 1 bytes yet." in (tmp_path / "report.md").read_text()


def test_latency_and_zero_losses_can_be_drawn(llama: Inventory, tmp_path: Path) -> None:
    """A loss of zero has a place on the logarithmic axis; times colour the plans and have their own section."""
    outcome = make_study(tmp_path, llama)
    trials = tuple(
        replace(trial, times=Times(decode_ms=1.0 + trial.number, prefill_ms=0.1)) for trial in outcome.trials.measured
    )
    trials = (replace(trials[0], loss=0.0, standard_error=float("nan")), *trials[1:])
    timed = {
        "original": {"decode_ms": 2.0, "decode_iqr": 0.1, "prefill_ms": 0.2, "prefill_iqr": 0.01},
        "0": {"decode_ms": None, "decode_iqr": None, "prefill_ms": 0.2, "prefill_iqr": 0.01},  # of an encoder
    }
    outcome = changed(replace(outcome, timed=timed), measured=trials)
    draw_front(outcome, tmp_path / "front.png")
    write_report(outcome, tmp_path, draw=False)
    assert "measured end to end" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("name", ["$\\frac$", "a_$b^c$ & <d>", "x" * 250, "two\nlines"])
def test_any_name_of_a_model_can_be_drawn(
    name: str, llama: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matplotlib does not read it as a formula, and the axes keep their room."""
    outcome = changed(make_study(tmp_path, llama), model=f"models/{name}")
    drawn: list[str] = []
    monkeypatch.setattr(
        pictures,
        "save",
        lambda figure, path: (save(figure, path), drawn.extend(a.get_title("left") for a in figure.axes)),
    )
    draw_front(outcome, tmp_path / "front.png")
    assert drawn[0].startswith(" ".join(name.split())[:39])
    assert len(drawn[0].partition(", target")[0]) <= 40
    write_report(outcome, tmp_path, draw=False)
    assert summary_lines(outcome, tmp_path)


def test_pictures_are_drawn_now_and_then(llama: Inventory, tmp_path: Path) -> None:
    """While a search goes on text is written each time, pictures at first and at the end.

    Who stops it does not wait for them.
    """
    searching = make_study(tmp_path, llama, state="searching")
    reports = Reports()
    reports.publish(searching, tmp_path)
    (tmp_path / "front.png").unlink()
    (tmp_path / "report.md").unlink()
    reports.publish(searching, tmp_path)
    assert (tmp_path / "report.md").is_file()
    assert not (tmp_path / "front.png").exists()
    Reports().publish(replace(searching, state="stopped"), tmp_path)
    assert not (tmp_path / "front.png").exists()
    reports.publish(make_study(tmp_path, llama), tmp_path)
    assert (tmp_path / "front.png").is_file()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("quantize bits=4 group_size=32", "4b g32"),
        ("quantize bits=8", "8b"),
        ("drop", "drop"),
        ("lowrank rank=8 then quantize bits=8", "lowrank 8 > 8b"),
    ],
)
def test_labels_are_short(text: str, label: str) -> None:
    """A choice fits a cell of the map."""
    assert short(parse_choice(text)) == label
