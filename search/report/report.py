"""Reports of a study: report.md, report.html, trials.csv and the pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from paredown.search.outcome.decision import Comparison, Finding
from paredown.search.outcome.outcome import Outcome
from paredown.search.outcome.question import METRICS
from paredown.search.report import pictures
from paredown.search.report.additivity import additivity_section
from paredown.search.report.rendering import Section, Table, as_html, as_markdown
from paredown.search.report.verdict import counts, early_words, price_words, verdict
from paredown.search.report.winners_curse import survival_section
from paredown.search.sensitivity.stored import SENSITIVITY, read_losses, read_sensitivity
from paredown.search.trial import Record
from paredown.space.site import Inventory
from paredown.space.system.files import write_atomically

PICTURE_SECONDS = 120.0
"""Least time between two drawings of the pictures while a search runs [s]."""

CAPTIONS = {
    pictures.FRONT: "Every measured plan by size and loss on the search set. Down and to the left is better.",
    pictures.CHOICES: "What the plan does to each layer.",
    pictures.SENSITIVITY: "How much each layer matters, as the search predicted it before the first trial.",
}


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

    front = {record.number for record in outcome.trials.front}
    rows = [
        {
            **{
                key: value for key, value in record.to_mapping().items() if key not in ("choices", "sequences", "whole")
            },
            "share_of_original": record.size_bytes / outcome.question.original_bytes,
            "within_budget": outcome.question.allows(record),
            "on_front": record.number in front,
            "choices": "; ".join(f"{site}: {choice}" for site, choice in record.plan.entries),
        }
        for record in outcome.trials.measured
    ]
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))


def draw_pictures(outcome: Outcome, folder: Path) -> None:
    """Draws the front, and the maps if the study folder has their data."""
    pictures.draw_front(outcome, folder / pictures.FRONT)
    try:
        inventory: Inventory = TypeAdapter(Inventory).validate_json((folder / "inventory.json").read_bytes())
        stored = read_sensitivity(folder / SENSITIVITY)
    except (OSError, ValueError):
        return
    pictures.draw_choices(outcome, inventory, folder / pictures.CHOICES)
    pictures.draw_sensitivity(read_losses(stored), outcome, inventory, folder / pictures.SENSITIVITY)


def sections_of(outcome: Outcome, folder: Path) -> list[Section]:
    """The report's sections in order; empty sections are left out."""
    sections = [
        Section(
            title="Result",
            paragraphs=[verdict(outcome), *early_words(outcome), *price_words(outcome)],
            table=_facts(outcome),
        ),
        _pictured("The front", pictures.FRONT, folder),
    ]
    if outcome.best:
        sections.append(
            Section(title="Where the loss was measured", paragraphs=_curse(outcome), table=_sets(outcome, outcome.best))
        )
    sections.append(survival_section(outcome))
    if outcome.decision.comparisons:
        sections.append(
            Section(title="Against plans made without a search", paragraphs=_guard(outcome), table=_compared(outcome))
        )
    if outcome.decision.refits:
        sections.append(Section(title="Compressed in order", paragraphs=_refit_words(outcome), table=_refits(outcome)))
    sections.append(_pictured("The layers", pictures.CHOICES, folder, _storage(outcome)))
    started = _pictured("What the search started from", pictures.SENSITIVITY, folder)
    sections.append(replace(started, table=_blocks(folder)))
    sections.append(additivity_section(outcome, folder))
    flattered = "These losses are on the search set, which chose these plans, so they are slightly optimistic."
    if outcome.trials.measured:
        sections.append(Section(title="Plans on the front", paragraphs=[flattered], table=_front(outcome)))
    if outcome.timed or any(record.decode_ms is not None for record in outcome.trials.measured):
        told = "Times on the front are predicted from timed layers. Only plans that ran end to end have measured times."
        sections.append(Section(title="Speed", paragraphs=[told], table=_timed(outcome) if outcome.timed else None))
    sections.append(Section(title="How it was made", table=_circumstances(outcome)))
    return [section for section in sections if section.paragraphs or section.table or section.picture]


def _pictured(title: str, picture: str, folder: Path, paragraphs: Sequence[str] = ()) -> Section:
    """A section with its picture, if the file exists."""
    drawn = (folder / picture).is_file()
    return Section(title=title, paragraphs=paragraphs, picture=picture if drawn else None, caption=CAPTIONS[picture])


def _facts(outcome: Outcome) -> Table:
    rows = [
        [
            "model",
            f"{outcome.question.model} ({outcome.question.architecture}, {outcome.question.parameters:,} parameters)",
        ],
        ["target", outcome.question.target],
        [
            "budget",
            f"{outcome.question.budget} = {outcome.question.budget_bytes:,} tensor bytes; the original has {outcome.question.original_bytes:,}",
        ],
        ["state", f"{outcome.state}; {counts(outcome)}; seed {outcome.question.seed}"],
        [
            "loss",
            f"{METRICS[outcome.question.metric][0]} [{METRICS[outcome.question.metric][1] or 'share'}]; lower is better",
        ],
    ]
    if outcome.question.max_decode_ms is not None:
        rows.append(["decode at most", f"{outcome.question.max_decode_ms:g} ms/token, predicted from timed layers"])
    if outcome.trials.original_perplexity is not None:
        rows.append(["perplexity of the original", f"{outcome.trials.original_perplexity:.4g} on the search set"])
    return ["", ""], rows


def _curse(outcome: Outcome) -> list[str]:
    text = (
        "The search set chose among all trials, so the winner's loss there is optimistic (winner's curse). The "
        "selection set chose among a few finalists. The held-out set was used once: to choose between the search's "
        "best and the uniform plan."
    )
    return (
        [text]
        if outcome.decision.selection
        else ["Only the search set was read so far, and it chose this plan: its loss there is optimistic."]
    )


def _sets(outcome: Outcome, best: Record) -> Table:
    rows = [
        [
            "search",
            f"{best.loss:.4g}",
            f"{best.loss - 1.96 * best.standard_error:.4g} to {best.loss + 1.96 * best.standard_error:.4g}",
            "",
            _perplexity(best),
        ]
    ]
    for name, findings in (("selection", outcome.decision.selection), ("held-out", outcome.decision.held_out)):
        if finding := findings.get(best.number):
            rows.append(
                [
                    name,
                    f"{finding.mean:.4g}",
                    f"{finding.low:.4g} to {finding.high:.4g}",
                    str(finding.documents),
                    _perplexity(finding),
                ]
            )
    if best.predicted_loss is not None:
        rows.append(["predicted, not measured", f"{best.predicted_loss:.4g}", "", "", ""])
    return ["set", f"loss of trial {best.number}", "95 % interval over documents", "documents", "perplexity"], rows


def _perplexity(of: Record | Finding) -> str:
    return "" if of.perplexity is None else f"{of.perplexity:.4g}"


def _guard(outcome: Outcome) -> list[str]:
    if outcome.decision.gains is False:
        return [
            "No significant gain: the 95 % interval of the ratio to the best uniform plan within the budget is not "
            "below 1, so that uniform plan is the winner."
        ]
    return [
        "Both plans of a row were measured on the same held-out documents. The ratio is paired; its interval is a "
        "bootstrap over documents and calibration draws."
    ]


def _blocks(folder: Path) -> Table | None:
    """Each block's angular distance beside its predicted loss when dropped; None if either is missing."""
    try:
        stored = read_sensitivity(folder / SENSITIVITY)
    except (OSError, ValueError):
        return None
    dropped = [
        (site, loss) for site, choice, loss in stored.losses if choice == "drop" and site.rpartition(".")[2].isdigit()
    ]
    distances = stored.angular_distances
    if not dropped or len(distances) != len(dropped):
        return None
    rows = [[site, f"{distance:.3f}", f"{loss:.4g}"] for (site, loss), distance in zip(dropped, distances, strict=True)]
    return [
        "block",
        "angular distance between input and output [half turns]",
        "loss when dropped, predicted from short sequences",
    ], rows


def _refit_words(outcome: Outcome) -> list[str]:
    told = (
        "Trials compress every matrix independently, on the inputs that the original gives it. The finalists were also "
        "compressed in order: each matrix on the inputs that the compressed matrices before it give, which corrects "
        "for their errors. The version with the lower loss on the selection set is kept."
    )
    draws = max((finding.draws for finding in outcome.decision.held_out.values()), default=1)
    more = f" For the held-out set they were rebuilt from {draws} calibration draws; its intervals cover both."
    return [told + (more if draws > 1 else "")]


def _refits(outcome: Outcome) -> Table:
    rows = []
    for number, refit in sorted(outcome.decision.refits.items(), key=lambda item: min(item[1].alone, item[1].in_order)):
        kept = "in order" if refit.gains else "independently"
        gain = f"{100 * (refit.in_order / refit.alone - 1):+.1f} %" if refit.alone > 0 else ""
        rows.append(
            [f"{number}: {outcome.trials[number].label}", f"{refit.alone:.4g}", f"{refit.in_order:.4g}", gain, kept]
        )
    return ["trial", "independently", "in order", "change", "kept"], rows


def _compared(outcome: Outcome) -> Table:
    names = {"uniform": "best uniform plan within the budget", "solver": "solver's plan, before any trial"}

    def row(name: str, comparison: Comparison) -> list[str]:
        other = outcome.trials[comparison.number]
        finding = outcome.decision.held_out.get(other.number)
        mean = f"{finding.mean:.4g}" if finding else ""
        ratio = f"{comparison.mean:.3f} ({comparison.low:.3f} to {comparison.high:.3f})"
        return [f"{names.get(name, name)}: {other.label} (trial {other.number})", f"{other.size_bytes:,}", mean, ratio]

    rows = [row(name, comparison) for name, comparison in outcome.decision.comparisons.items()]
    if outcome.decision.searched is not None and (finding := outcome.decision.held_out.get(outcome.decision.searched)):
        ours = outcome.trials[outcome.decision.searched]
        rows.insert(
            0,
            [f"search's best: {ours.label} (trial {ours.number})", f"{ours.size_bytes:,}", f"{finding.mean:.4g}", "1"],
        )
    return ["plan", "bytes", "held-out loss", "search's best over it (95 % interval)"], rows


def _storage(outcome: Outcome) -> list[str]:
    best = outcome.best
    if best is None:
        return []
    used = sorted({step.method for _, choice in best.plan.entries for step in choice.steps if step.storage_only})
    if not used:
        return []
    return [
        f"Storage only ({' and '.join(used)}): these layers are smaller on disk; in memory they are dense and run no "
        "faster."
    ]


def _front(outcome: Outcome) -> Table:
    timed = any(record.decode_ms is not None for record in outcome.trials.front)
    head = [
        "trial",
        "bytes",
        "of the original",
        "loss ± 95 %",
        "perplexity",
        "plan",
        *(["decode, predicted [ms/token]"] if timed else []),
    ]
    rows = []
    for record in outcome.trials.front:
        mark = " (winner)" if record.number == outcome.decision.winner else ""
        spread = f"{record.loss:.4g} ± {1.96 * record.standard_error:.1g}"
        row = [
            f"{record.number}{mark}",
            f"{record.size_bytes:,}",
            f"{100 * record.size_bytes / outcome.question.original_bytes:.1f} %",
            spread,
        ]
        row += [_perplexity(record), f"{record.origin}: {record.label}"]
        rows.append(row + ([f"{record.decode_ms:.3g}" if record.decode_ms is not None else ""] if timed else []))
    return head, rows


def _timed(outcome: Outcome) -> Table:
    rows = []
    for name, times in outcome.timed.items():
        spread = [
            "" if times.get(f"{kind}_ms") is None else f"{times[f'{kind}_ms']:.3g} (IQR {times[f'{kind}_iqr']:.2g})"
            for kind in ("decode", "prefill")  # encoders have no decode time
        ]
        rows.append([name if name == "original" else f"trial {name}", *spread])
    return ["measured end to end", "decode [ms/token]", "prefill [ms/token]"], rows


def _circumstances(outcome: Outcome) -> Table:
    seconds = [[step, f"{spent:.0f} s"] for step, spent in outcome.circumstances.seconds.items()]
    environment = [[str(key), str(value)] for key, value in outcome.circumstances.environment.items()]
    fingerprints = [
        [f"{name} texts, sha256", digest[:16]] for name, digest in outcome.circumstances.data_sha256.items()
    ]
    return ["step, version or text", ""], [*seconds, *environment, *fingerprints]
