"""Reports of a study: report.md, report.html, trials.csv and the pictures."""

from __future__ import annotations

import time
from pathlib import Path

from paredown.search.outcome.inventory_file import read_inventory
from paredown.search.outcome.outcome import Outcome
from paredown.search.report import pictures
from paredown.search.report.rendering import as_html, as_markdown
from paredown.search.report.sections import sections_of
from paredown.search.sensitivity.stored import SENSITIVITY, read_losses, read_sensitivity
from paredown.space.errors import StudyError
from paredown.space.system.files import write_atomically

PICTURE_SECONDS = 120.0
"""Least time between two drawings of the pictures while a search runs [s]."""


class Reports:
    """Reports of a running search.

    The text is written each time, the pictures at most every `PICTURE_SECONDS` and at the end. A search that is being
    stopped draws none.
    """

    def __init__(self) -> None:
        self._drawn = -PICTURE_SECONDS

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """Writes the reports that are due."""
        now = time.monotonic()
        due = outcome.state == "finished" or (outcome.state == "searching" and now - self._drawn >= PICTURE_SECONDS)
        write_report(outcome, folder, draw=due)
        if due:
            self._drawn = time.monotonic()


def write_report(outcome: Outcome, folder: Path, *, draw: bool = True) -> None:
    """Writes all reports of a study, each atomically.

    Args:
        outcome: The outcome; without a measured trial there is no table of trials and no picture.
        folder: The study folder; its ``inventory.json`` and ``sensitivity.json`` are read for the pictures.
        draw: Whether to redraw the pictures too.

    Raises:
        OutputError: If the folder cannot be written.
    """
    if outcome.trials.measured:
        write_trials(outcome, folder / "trials.csv")
    if draw and outcome.trials.measured:
        draw_pictures(outcome, folder)
    title, sections = f"{outcome.question.model} at {outcome.question.budget}", sections_of(outcome, folder)
    write_atomically(folder / "report.md", as_markdown(title, sections))
    write_atomically(
        folder / "report.html",
        as_html(title, sections, folder, f"paredown {outcome.circumstances.environment.get('paredown', '')}"),
    )


def write_trials(outcome: Outcome, path: Path) -> None:
    """Writes all measured trials as a CSV table, one row each."""
    import pandas as pd

    front = {trial.number for trial in outcome.trials.front}
    rows = [
        {
            **{key: value for key, value in trial.to_mapping().items() if key not in ("choices", "sequences", "whole")},
            "share_of_original": trial.size_bytes / outcome.question.original_bytes,
            "within_budget": outcome.question.allows(trial),
            "on_front": trial.number in front,
            "choices": "; ".join(f"{site}: {choice}" for site, choice in trial.plan.entries),
        }
        for trial in outcome.trials.measured
    ]
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))


def draw_pictures(outcome: Outcome, folder: Path) -> None:
    """Draws the front, and the maps if the study folder has their data."""
    pictures.draw_front(outcome, folder / pictures.FRONT)
    try:
        inventory = read_inventory(folder)
        stored = read_sensitivity(folder / SENSITIVITY)
    except StudyError:
        return
    pictures.draw_choices(outcome, inventory, folder / pictures.CHOICES)
    pictures.draw_sensitivity(read_losses(stored), outcome, inventory, folder / pictures.SENSITIVITY)
