"""Plan files of what a study measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paredown.search.outcome import Outcome, Provisional
from paredown.search.record import Record
from paredown.space.errors import OutputError, PlanError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, Calibration, PlanFile, Records, choices_of

PLAN = "plan.yaml"
UNITS = {"kl": "nats/token", "relative-error": "share of the squared norm of the final hidden states"}


def calibration_of(outcome: Outcome, plan: Plan, *, in_order: bool) -> Calibration | None:
    """The texts that a plan was compressed with; None for plans that none decides on."""
    if not outcome.calibration or not any(choice.needs for _, choice in plan.entries):
        return None
    return Calibration(**outcome.calibration, in_order=in_order)


def plan_file(plan: Plan, reference: BaseModelReference, target: str, size_bytes: int, **known: Any) -> PlanFile:
    """A plan with where it came from."""
    return PlanFile(base_model=reference, target=target, choices=choices_of(plan), size_bytes=size_bytes, **known)


RecordsOf = Callable[[Record], Records | None]
"""Digests of what a trial scored; None where its plan is not in the bank."""


def publish(
    outcome: Outcome,
    reference: BaseModelReference,
    folder: Path,
    reports: Callable[[Outcome, Path], None],
    records_of: RecordsOf,
) -> None:
    """Writes all that people read of a study; what ``front.json`` calls finished is written before it says so.

    Args:
        outcome: As it stands.
        reference: The original, as plan files name it.
        folder: The study folder.
        reports: Writes the reports.
        records_of: For the plan files.

    Raises:
        OutputError: If the folder cannot be written; the same call makes up for what is missing.
    """
    publish_plans(outcome, reference, folder, records_of)
    reports(outcome, folder)
    outcome.write(folder)


def publish_plans(
    outcome: Outcome, reference: BaseModelReference, folder: Path, records_of: RecordsOf = lambda record: None
) -> None:
    """Writes ``best/plan.yaml`` and a plan for every trial on the front; plans that left the front are removed."""
    finished = outcome.state == "finished"
    if outcome.best:
        _update(
            folder / "best" / PLAN,
            measured_file(outcome, outcome.best, reference, records_of(outcome.best)),
            scored=finished,
        )
    wanted = {f"{record.number:04d}": record for record in outcome.front}
    for name, record in wanted.items():
        path = folder / "front" / name / PLAN
        if (
            outcome.state != "searching" or not path.is_file()
        ):  # while a search runs, what a trial's file says does not change
            _update(path, measured_file(outcome, record, reference, records_of(record)), scored=finished)
    for old in sorted((folder / "front").glob("*")):
        if old.name not in wanted and _is_of_a_trial(old):
            _remove(old)


def _update(path: Path, file: PlanFile, *, scored: bool) -> None:
    """Writes a plan file unless the same is there.

    Args:
        path: The file.
        file: What it should hold.
        scored: Whether digests that it has of the same plan stay: they are of what was scored, whatever the bank holds by now.
    """
    try:
        before = PlanFile.read(path)
    except PlanError:
        before = None
    if (
        scored
        and before
        and before.records
        and (before.choices, before.calibration) == (file.choices, file.calibration)
    ):
        file = file.model_copy(update={"records": before.records})
    if before is None or before.to_yaml() != file.to_yaml():
        file.write(path)


def _is_of_a_trial(folder: Path) -> bool:
    """Whether a folder is named as that of a trial and holds nothing but its plan: anything else belongs to somebody."""
    named = re.fullmatch("[0-9]{4,}", folder.name) is not None and folder.is_dir() and not folder.is_symlink()
    return named and {path.name for path in folder.iterdir()} <= {PLAN}


def _remove(folder: Path) -> None:
    try:
        (folder / PLAN).unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror}; make its folder writable") from None


def unmeasured_file(outcome: Outcome, provisional: Provisional, plan: Plan, reference: BaseModelReference) -> PlanFile:
    """The plan file of a plan that can be applied before the first trial; its loss is predicted, or not known."""
    quality = {
        "metric": outcome.metric,
        "unit": UNITS[outcome.metric],
        "measured_on": "predicted",
        "mean": provisional.predicted_loss,
    }
    return plan_file(
        plan,
        reference,
        outcome.target,
        provisional.size_bytes,
        calibration=calibration_of(outcome, plan, in_order=False),
        quality=quality
        if provisional.predicted_loss is not None
        else {"metric": outcome.metric, "measured_on": "nothing"},
        compared_with={"unguarded": "not measured yet"},
        provenance=_provenance(outcome, provisional.origin),
    )


def measured_file(
    outcome: Outcome, record: Record, reference: BaseModelReference, records: Records | None = None
) -> PlanFile:
    """The plan file of a trial, with the best that is known of its quality."""
    held_out, selection = outcome.held_out.get(record.number), outcome.selection.get(record.number)
    quality: dict[str, Any] = {"metric": outcome.metric, "unit": UNITS[outcome.metric]}
    finding = held_out or selection
    if finding:
        name = "held-out" if held_out else "selection"
        quality |= {
            "measured_on": name,
            "mean": finding.mean,
            "ci95": [finding.low, finding.high],
            "documents": finding.documents,
        }
        quality |= {"perplexity": finding.perplexity}
    else:
        name = "search"
        quality |= {
            "measured_on": name,
            "mean": record.loss,
            "standard_error": record.standard_error,
            "perplexity": record.perplexity,
        }
    quality["data_sha256"] = outcome.data_sha256.get(name)
    compared: dict[str, Any] | None = None
    if (against := outcome.comparisons.get("uniform")) and record.number == outcome.searched:
        other = outcome[against.number]
        compared = {
            "uniform": {
                "choice": other.label,
                "size_bytes": other.size_bytes,
                "quality": outcome.held_out[other.number].mean,
                "ratio": against.mean,
                "ratio_ci95": [against.low, against.high],
            }
        }
    if outcome.unguarded and record.number == outcome.winner:
        compared = {"unguarded": outcome.unguarded, "to_complete": outcome.completion, **(compared or {})}
    latency: dict[str, dict[str, Any]] | None = None
    predicted = {"decode": record.decode_ms, "prefill": record.prefill_ms}
    if known := {name: value for name, value in predicted.items() if value is not None}:
        timed = outcome.timed.get(str(record.number), {})
        latency = {name: {"unit": "ms/token", "predicted": value} for name, value in known.items()}
        for name in known if timed else ():
            latency[name] |= {
                "measured": timed[f"{name}_ms"],
                "iqr": timed[f"{name}_iqr"],
                "device": outcome.environment.get("cpu"),
            }
    return plan_file(
        record.plan,
        reference,
        outcome.target,
        record.size_bytes,
        calibration=calibration_of(outcome, record.plan, in_order=outcome.in_order(record)),
        records=records,
        quality=quality,
        latency=latency,
        compared_with=compared,
        provenance=_provenance(outcome, record.origin, trial=record.number),
    )


def _provenance(outcome: Outcome, origin: str, **known: Any) -> dict[str, Any]:
    made = {"study": outcome.model, **known, "origin": origin, "seed": outcome.seed}
    return made | {
        key: outcome.environment[key]
        for key in ("paredown", "torch", "transformers", "cpu")
        if key in outcome.environment
    }
