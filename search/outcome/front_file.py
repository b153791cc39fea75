"""The file ``front.json``: an outcome as one flat JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from paredown.evaluators.metrics import metrics
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Trial
from paredown.space.errors import StudyError
from paredown.space.plan_file import Calibration
from paredown.space.system.files import read_stored, write_atomically

FILE = "front.json"
STATES = ("searching", "stopped", "finished")
TIMES = {f"{kind}_{value}" for kind in ("decode", "prefill") for value in ("ms", "iqr")}
"""Keys of a deployed model's end-to-end timing: median and interquartile range per token [ms], decode and prefill."""

KEYS = (
    *("state", "model", "architecture", "target", "metric", "original_bytes", "parameters", "budget", "budget_bytes"),
    *("original_perplexity", "records", "stopped_early", "failed", "spent", "patience", "ended"),
    *("selection", "refits", "survival", "held_out", "winner", "uniform", "searched", "comparisons"),
    *("unselected", "unguarded", "provisional", "completion", "calibration", "data_sha256", "latency", "timed"),
    *("seconds", "environment", "seed", "max_decode_ms", "prices", "front"),
)
"""Keys of the file, in order; ``records`` holds the trials measured on the whole search set."""


def write_front_file(outcome: Outcome, folder: Path) -> None:
    """Writes ``front.json`` atomically."""
    parts: tuple[Any, ...] = (outcome, outcome.question, outcome.trials, outcome.decision, outcome.circumstances)
    values = {name: getattr(part, name) for part in parts for name in part.__slots__}
    values["records"] = outcome.trials.measured
    values["front"] = [trial.number for trial in outcome.trials.front]
    write_atomically(folder / FILE, json.dumps({key: values[key] for key in KEYS}, indent=1, default=_mapping))


def read_front_file(folder: Path) -> Outcome:
    """Outcome stored in a study folder.

    Raises:
        StudyError: If there is none yet, or it is damaged.
    """
    if not (folder / FILE).is_file():
        raise StudyError(f"{folder} holds no finished trial ({FILE} is missing); give the folder of a search")
    return read_stored(folder / FILE, _outcome, "run the search again to rewrite it from study.db")


def stored_outcome(folder: Path) -> Outcome | None:
    """Outcome stored in a study folder; None if it is missing or damaged: the search then rewrites it."""
    try:
        return read_front_file(folder)
    except StudyError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value.to_mapping() if isinstance(value, Trial) else asdict(value)


def _outcome(mapping: dict[str, Any]) -> Outcome:
    """Outcome from the content of ``front.json``.

    Raises:
        ValueError: If the content is inconsistent; a missing part raises another error of `DAMAGE`.
    """
    measured = [Trial.from_mapping(trial) for trial in mapping["records"]]
    parts = {name: mapping for name in ("question", "decision", "circumstances")}
    outcome: Outcome = TypeAdapter(Outcome).validate_python(
        {**mapping, **parts, "trials": {**mapping, "measured": measured}}
    )
    _check(outcome)
    return outcome


def _check(outcome: Outcome) -> None:
    """Checks that the parts of an outcome agree.

    Raises:
        ValueError: If they do not.
    """
    question, decision = outcome.question, outcome.decision
    if unknown := decision.named - {trial.number for trial in outcome.trials.measured}:
        raise ValueError(f"it names trial {min(unknown)} but does not contain it")
    if not {comparison.number for comparison in decision.comparisons.values()} <= set(decision.held_out):
        raise ValueError("it compares plans that have no held-out measurement")
    if question.metric not in metrics:
        raise ValueError(f"no installed package offers its metric, {question.metric}")
    if outcome.state not in STATES or question.original_bytes < 1:
        raise ValueError(f"state {outcome.state}, {question.original_bytes} bytes of the original")
    if any(not set(times) >= TIMES for times in outcome.timed.values()):
        raise ValueError("times of a deployed model are missing")
    if outcome.circumstances.calibration:
        Calibration(**outcome.circumstances.calibration, in_order=False)
