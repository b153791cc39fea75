"""Results as lines of text for the command line. This module imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paredown.evaluators.metrics import metrics

if TYPE_CHECKING:
    from paredown.compressors.bank.contents import Cleaning, Holdings
    from paredown.deploy.apply import Applied
    from paredown.deploy.verify import Verified
    from paredown.evaluation import Evaluation
    from paredown.inspection import Inspection
    from paredown.search.outcome.outcome import Outcome
    from paredown.search.study.select import Selected
    from paredown.transferring import Transferred


def of_inspection(found: Inspection) -> list[str]:
    """Lines on a model's sites, their choices and bytes, and the cost of a search."""
    share = found.smallest_bytes / found.original_bytes
    lines = [
        f"{found.model}: {found.architecture}, {found.parameters:,} parameters, {found.original_bytes:,} tensor bytes"
    ]
    for kind, (count, size, most) in found.kinds.items():
        lines.append(
            f"  {kind:<10} {count:>5} sites  {size:>15,} bytes  " + (f"up to {most} choices" if most else "always kept")
        )
    lines.append(f"target {found.target}: the smallest plan takes {found.smallest_bytes:,} bytes ({share:.1%})")
    lines += [f"  cannot be compressed: {reason}" for reason in found.refusals]
    if found.storage_only:
        lines.append(f"  {', '.join(found.storage_only)}: smaller on disk only, not faster")
    for kind in found.kinds:
        example = max((site for site in found.sites if site["kind"] == kind), key=lambda site: len(site["choices"]))
        if example["choices"]:
            lines.append(f"  choices of {example['name']}:")
            lines += [f"    {choice:<44} {size:>12,} bytes" for choice, size in example["choices"].items()]
    return [*lines, *found.remarks, *_of_cost(found)]


def of_search(found: Inspection) -> list[str]:
    """Lines on the cost of a search."""
    head = (
        f"{found.model}: {found.architecture}, {found.original_bytes:,} tensor bytes; {len(found.sites)} sites; "
        f"target {found.target}"
    )
    return [head, *found.remarks, *_of_cost(found)]


def _of_cost(found: Inspection) -> list[str]:
    cost = found.cost
    low, high = cost["seconds"] or cost["around_seconds"]
    one = " to ".join(f"{seconds:.2g} s" for seconds in cost["trial_seconds"])
    what = (
        f"at most {cost['trials']} trials and the steps before and after"
        if cost["seconds"]
        else "the steps before and after the trials"
    )
    return [
        f"budget {found.budget} = {found.budget_bytes:,} bytes",
        f"disk: {amount(cost['bank_bytes'])} in the bank, {amount(cost['disk_bytes'])} at the peak; "
        f"memory: about {amount(cost['memory_bytes'])}",
        f"expected time on an idle machine: {duration(low)} to {duration(high)} for {what}, {one} per trial; "
        f"{cost['tokens_per_trial']:,} tokens per trial, {cost['tokens']:,} in total",
    ]


def amount(size_bytes: int) -> str:
    """Text of a size: ``345.6 MB``, ``280.1 GB``."""
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:,.1f} MB"


def of_bank(found: Holdings) -> list[str]:
    """Lines on the content of a bank."""
    lines = [f"{found.folder}: {found.total.records:,} records, {found.total.bytes:,} bytes in total"]
    lines += [f"  of model {model}" for model in found.models]
    by_size = sorted(found.methods.items(), key=lambda item: -item[1].bytes)
    lines += [f"  {name:<36} {count.records:>6,} records {count.bytes:>15,} bytes" for name, count in by_size]
    for key in sorted({*found.statistics, *found.calibrations}):
        statistics, records = found.statistics.get(key), found.calibrations.get(key)
        what = f"statistics of {statistics.bytes:,} bytes" if statistics else "no statistics"
        lines.append(f"  texts {key[:12]}: {what}, {records.records if records else 0:,} records calibrated on them")
    if rest := found.unfinished.bytes + found.forgotten.bytes:
        lines.append(f"  {rest:,} bytes that are never read; --clean gives details")
    return lines


def of_cleaning(found: Cleaning) -> list[str]:
    """Lines on what the cleaning of a bank frees."""
    counts = {
        "left by killed processes": found.unfinished,
        "of records that can no longer be read": found.forgotten,
        "that no kept study needs": found.unneeded,
    }
    lines = [
        f"  {count.bytes:>15,} bytes in {count.records:,} files {text}"
        for text, count in counts.items()
        if count.records
    ]
    head = f"freed {found.bytes:,} bytes" if found.removed else f"{found.bytes:,} bytes can be freed"
    return [head, *lines, *(["add --yes to remove them"] if lines and not found.removed else [])]


def of_selection(found: Selected) -> list[str]:
    """Lines on a plan for another budget, and on the nearest measurement."""
    size, share = found.plan_file.size_bytes, 100 * found.plan_file.size_bytes / found.original_bytes
    lines = [f"wrote {found.path}: {size:,} bytes ({share:.1f}%), predicted loss {found.predicted_loss:.4g}"]
    if found.measured:
        lines.append(
            f"this plan was measured on the search set as trial {found.measured.number}: loss {found.measured.loss:.4g}"
        )
    elif best := found.alternative:
        lines.append(
            f"the best measured plan of at most this size is trial {best.number}: {best.size_bytes:,} bytes, "
            f"loss {best.loss:.4g} (search set)"
        )
    return lines


def of_transfer(found: Transferred) -> list[str]:
    """Lines on a transferred plan: its changes, its gain on the new model, and the cost."""
    size, outcome = found.plan_file.size_bytes, found.outcome
    how = "by name" if found.by_name else "by relative depth and role"
    fitted = f", changed at {found.repaired} sites to fit" if found.repaired else ""
    moved = f", bytes moved at {found.moved} sites" if found.moved else ""
    times = found.anew_tokens / max(found.tokens, 1)
    anew = f"a new search ({found.anew_trials} trials) would read {found.anew_tokens:,}, {times:.1f} times as many"
    return [
        f"wrote {found.path}: {size:,} bytes ({100 * size / outcome.question.original_bytes:.1f}%), "
        f"within the budget of {outcome.question.budget_bytes:,}",
        f"the plan of {found.made_for} was carried over {how} ({found.before_bytes:,} bytes){fitted}{moved}",
        _of_gain(outcome),
        f"forward passes read {found.tokens:,} tokens in {duration(found.seconds)}; {anew}",
    ]


def _of_gain(outcome: Outcome) -> str:
    """Line that compares a transferred plan with the best uniform plan."""
    metric, decision = metrics[outcome.question.metric], outcome.decision
    if decision.searched is None:
        return "the transferred plan gives no finite predictions on this model: the uniform plan was written"
    found = decision.held_out[decision.searched]
    loss = f"held-out {metric.title} of the transferred plan: {found.mean:.4g} {metric.unit}".rstrip()
    against = decision.comparisons.get("uniform")
    if against is None or decision.uniform is None:
        return f"{loss}; no other uniform plan within the budget to compare with"
    spread = f"95% interval {against.low:.3f} to {against.high:.3f} over {found.documents} documents"
    uniform = outcome.trials[decision.uniform].label
    ratio = f"{against.mean:.3f} of the best uniform plan's ({uniform}), {spread}"
    return (
        f"{loss}, {ratio}" if decision.gains else f"{loss}, {ratio}; no significant gain: the uniform plan was written"
    )


def of_application(applied: Applied, verified: Verified | None, out: Path) -> list[str]:
    """Lines on a written model, and on its verification."""
    share = 100 * applied.size_bytes / applied.original_bytes
    size = (
        f"{applied.size_bytes:,} tensor bytes, as predicted, {share:.1f}% of the original; "
        f"{applied.header_bytes:,} bytes of headers"
    )
    lines = [f"wrote {out}: {size}", *(of_verification(verified) if verified else [])]
    if applied.differences:
        lines += [*applied.differences, "run paredown eval to measure the quality of the written model"]
    elif applied.other_texts:
        lines.append(
            "calibrated on other texts than the plan was measured with (other files, another Python): "
            "run paredown eval to measure the quality"
        )
    return lines


def of_verification(found: Verified) -> list[str]:
    """Lines on the verification in a fresh process."""
    cached = (
        ""
        if found.incremental_difference is None
        else f", cached decoding from the full pass {found.incremental_difference:.1g}"
    )
    return [
        f"verified in a fresh process: {found.size_bytes:,} tensor bytes, no missing or unexpected key; "
        "largest difference, as a share of the largest logit: "
        f"from the scored model {found.difference:.1g}{cached}, loaded in bfloat16 {found.fast_difference:.1g}"
    ]


def of_evaluation(found: Evaluation, data: Sequence[str], original: str | None) -> list[str]:
    """Lines on a model's perplexity and its distance from the original."""
    lines = [f"held-out part of {', '.join(data)}: {found.tokens:,} tokens of {found.documents} documents"]
    if found.mean is not None and found.metric is not None:
        unit = metrics[found.metric].unit_in_words
        spread = f"95% interval over documents {found.low:.4g} to {found.high:.4g}"
        lines.append(f"{found.metric} to {original}: {found.mean:.4g} {unit}, {spread}")
    if found.perplexity is not None:
        beside = f", original {found.original_perplexity:.4g}" if found.original_perplexity is not None else ""
        lines.append(f"perplexity {found.perplexity:.4g}{beside}")
    return lines


def duration(seconds: float) -> str:
    """Text of a duration: ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
