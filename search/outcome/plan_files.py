"""Plan files of a study's trials."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paredown.evaluators.metrics import metrics, usual_metric
from paredown.search.outcome.front_file import write_front_file
from paredown.search.outcome.outcome import Outcome, Provisional
from paredown.search.trial import Trial
from paredown.space.errors import OutputError, PlanError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, Calibration, PlanFile, Records, choices_of

PLAN = "plan.yaml"


def calibration_of(outcome: Outcome, plan: Plan, *, in_order: bool) -> Calibration | None:
    """Texts that a plan was compressed with; None if no choice of the plan is calibrated."""
    if not outcome.circumstances.calibration or not any(choice.needs for _, choice in plan.entries):
        return None
    return Calibration(**outcome.circumstances.calibration, in_order=in_order)


def plan_file(plan: Plan, reference: BaseModelReference, target: str, size_bytes: int, **known: Any) -> PlanFile:
    """A plan file with the plan, its origin and whatever else is known."""
    return PlanFile(base_model=reference, target=target, choices=choices_of(plan), size_bytes=size_bytes, **known)


RecordsOf = Callable[[Trial], Records | None]
"""Digests of the bank's records that a trial was scored with; None where its plan is not in the bank."""


def publish(
    outcome: Outcome,
    reference: BaseModelReference,
    folder: Path,
    reports: Callable[[Outcome, Path], None],
    records_of: RecordsOf,
) -> None:
    """Writes all that people read: plans, then reports, then ``front.json``, so that a finished state is written last.

    Args:
        outcome: The current outcome.
        reference: The original, as plan files name it.
        folder: The study folder.
        reports: Writes the reports.
        records_of: Digests for the plan files.

    Raises:
        OutputError: If the folder cannot be written; the same call writes what is missing.
    """
    publish_plans(outcome, reference, folder, records_of)
    reports(outcome, folder)
    write_front_file(outcome, folder)


def publish_plans(
    outcome: Outcome, reference: BaseModelReference, folder: Path, records_of: RecordsOf = lambda trial: None
) -> None:
    """Writes ``best/plan.yaml`` and one plan file per trial on the front; removes those of trials that left it."""
    finished = outcome.state == "finished"
    if outcome.best:
        _update(
            folder / "best" / PLAN,
            measured_file(outcome, outcome.best, reference, records_of(outcome.best)),
            scored=finished,
        )
    wanted = {f"{trial.number:04d}": trial for trial in outcome.trials.front}
    for name, trial in wanted.items():
        path = folder / "front" / name / PLAN
        if outcome.state != "searching" or not path.is_file():  # a trial's file is constant while the search runs
            _update(path, measured_file(outcome, trial, reference, records_of(trial)), scored=finished)
    for old in sorted((folder / "front").glob("*")):
        if old.name not in wanted and _is_of_a_trial(old):
            _remove(old)


def _update(path: Path, file: PlanFile, *, scored: bool) -> None:
    """Writes a plan file unless it already has the same content.

    Args:
        path: The file.
        file: Wanted content.
        scored: Whether to keep the file's digests of the same plan: they describe what was scored, even if the bank
            has changed since.
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
    """Whether a folder is named like a trial and holds nothing but a plan; any other folder is the user's."""
    named = re.fullmatch("[0-9]{4,}", folder.name) is not None and folder.is_dir() and not folder.is_symlink()
    return named and {path.name for path in folder.iterdir()} <= {PLAN}


def _remove(folder: Path) -> None:
    try:
        (folder / PLAN).unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror}; make its folder writable") from None


def unmeasured_file(outcome: Outcome, provisional: Provisional, plan: Plan, reference: BaseModelReference) -> PlanFile:
    """Plan file of a plan that can be applied before the first trial; its loss is predicted or unknown."""
    metric = usual_metric(outcome.question.metric)
    quality = {
        "metric": metric,
        "unit": metrics[metric].unit_in_words,
        "measured_on": "predicted",
        "mean": provisional.predicted_loss,
    }
    return plan_file(
        plan,
        reference,
        outcome.question.target,
        provisional.size_bytes,
        calibration=calibration_of(outcome, plan, in_order=False),
        quality=quality if provisional.predicted_loss is not None else {"metric": metric, "measured_on": "nothing"},
        compared_with={"unguarded": "not measured yet"},
        provenance=_provenance(outcome, provisional.origin),
    )


def measured_file(
    outcome: Outcome, trial: Trial, reference: BaseModelReference, records: Records | None = None
) -> PlanFile:
    """Plan file of a trial, with its quality from the most trustworthy set: held-out, else selection, else search."""
    return plan_file(
        trial.plan,
        reference,
        outcome.question.target,
        trial.size_bytes,
        calibration=calibration_of(outcome, trial.plan, in_order=outcome.decision.in_order(trial)),
        records=records,
        quality=quality_of(outcome, trial),
        latency=_latency(outcome, trial),
        compared_with=_comparison(outcome, trial),
        provenance=_provenance(outcome, trial.origin, trial=trial.number),
    )


def quality_of(outcome: Outcome, trial: Trial) -> dict[str, Any]:
    """Quality of a trial, in the form of a plan file."""
    measured: dict[str, Any] = {"mean": trial.loss, "standard_error": trial.standard_error}
    perplexity, name = trial.perplexity, "search"
    for fresh, found in (("held-out", outcome.decision.held_out), ("selection", outcome.decision.selection)):
        if finding := found.get(trial.number):
            measured = {"mean": finding.mean, "ci95": [finding.low, finding.high], "documents": finding.documents}
            perplexity, name = finding.perplexity, fresh
            break
    return {
        "metric": outcome.question.metric,
        "unit": metrics[outcome.question.metric].unit_in_words,
        "measured_on": name,
        **measured,
        "perplexity": perplexity,
        "data_sha256": outcome.circumstances.data_sha256.get(name),
    }


def _comparison(outcome: Outcome, trial: Trial) -> dict[str, Any] | None:
    """What a trial was compared with, and what is missing; None if it is neither the search's best nor unguarded."""
    decision = outcome.decision
    compared: dict[str, Any] = {}
    if decision.unguarded and trial.number == decision.winner:
        compared = {"unguarded": decision.unguarded, "to_complete": decision.completion}
    if (against := decision.comparisons.get("uniform")) and trial.number == decision.searched:
        other = outcome.trials[against.number]
        compared["uniform"] = {
            "choice": other.label,
            "size_bytes": other.size_bytes,
            "quality": decision.held_out[other.number].mean,
            "ratio": against.mean,
            "ratio_ci95": [against.low, against.high],
        }
    return compared or None


def _latency(outcome: Outcome, trial: Trial) -> dict[str, dict[str, Any]] | None:
    """Times of a token, predicted and where possible measured; None where no time is known."""
    predicted = {"decode": trial.times.decode_ms, "prefill": trial.times.prefill_ms}
    timed = outcome.timed.get(str(trial.number), {})
    latency = {
        name: {"unit": "ms/token", "predicted": value, **_timed(outcome, timed, name)}
        for name, value in predicted.items()
        if value is not None
    }
    return latency or None


def _timed(outcome: Outcome, times: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not times:
        return {}
    device = outcome.circumstances.environment.get("cpu")
    return {"measured": times[f"{name}_ms"], "iqr": times[f"{name}_iqr"], "device": device}


def _provenance(outcome: Outcome, origin: str, **known: Any) -> dict[str, Any]:
    made = {"study": outcome.question.model, **known, "origin": origin, "seed": outcome.question.seed}
    return made | {
        key: outcome.circumstances.environment[key]
        for key in ("paredown", "torch", "transformers", "cpu")
        if key in outcome.circumstances.environment
    }
