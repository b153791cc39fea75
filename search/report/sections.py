"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paredown.evaluators.metrics import metrics
from paredown.search.outcome.outcome import Outcome
from paredown.search.report import pictures
from paredown.search.report.additivity import additivity_section
from paredown.search.report.fresh_texts import guard_section, refits_section, sets_section
from paredown.search.report.rendering import Section, Table, number_text
from paredown.search.report.verdict import counts, early_words, price_words, verdict
from paredown.search.report.winners_curse import survival_section
from paredown.search.sensitivity.stored import SENSITIVITY, read_sensitivity
from paredown.space.errors import StudyError

CAPTIONS = {
    pictures.FRONT: "Every measured plan by size and loss on the search set. Down and to the left is better.",
    pictures.CHOICES: "What the plan does to each layer.",
    pictures.SENSITIVITY: "How much each layer matters, as the search predicted it before the first trial.",
}


def sections_of(outcome: Outcome, folder: Path) -> list[Section]:
    """The report's sections in order; empty sections are left out."""
    started = _pictured("What the search started from", pictures.SENSITIVITY, folder)
    sections = [
        _result(outcome),
        _pictured("The front", pictures.FRONT, folder),
        sets_section(outcome),
        survival_section(outcome),
        guard_section(outcome),
        refits_section(outcome),
        _pictured("The layers", pictures.CHOICES, folder, _storage(outcome)),
        replace(started, table=_blocks(folder)),
        additivity_section(outcome, folder),
        _plans(outcome),
        _speed(outcome),
        Section(title="How it was made", table=_circumstances(outcome)),
    ]
    return [section for section in sections if section.paragraphs or section.table or section.picture]


def _pictured(title: str, picture: str, folder: Path, paragraphs: Sequence[str] = ()) -> Section:
    """A section with its picture, if the file exists."""
    drawn = (folder / picture).is_file()
    return Section(title=title, paragraphs=paragraphs, picture=picture if drawn else None, caption=CAPTIONS[picture])


def _result(outcome: Outcome) -> Section:
    words = [verdict(outcome), *early_words(outcome), *price_words(outcome)]
    return Section(title="Result", paragraphs=words, table=_facts(outcome))


def _plans(outcome: Outcome) -> Section:
    if not outcome.trials.measured:
        return Section(title="Plans on the front")
    flattered = "These losses are on the search set, which chose these plans, so they are slightly optimistic."
    return Section(title="Plans on the front", paragraphs=[flattered], table=_front(outcome))


def _speed(outcome: Outcome) -> Section:
    if not outcome.timed and all(trial.times.decode_ms is None for trial in outcome.trials.measured):
        return Section(title="Speed")
    told = "Times on the front are predicted from timed layers. Only plans that ran end to end have measured times."
    return Section(title="Speed", paragraphs=[told], table=_timed(outcome) if outcome.timed else None)


def _facts(outcome: Outcome) -> Table:
    question, metric = outcome.question, metrics[outcome.question.metric]
    size = f"{question.budget_bytes:,} tensor bytes; the original has {question.original_bytes:,}"
    rows = [
        ["model", f"{question.model} ({question.architecture}, {question.parameters:,} parameters)"],
        ["target", question.target],
        ["budget", f"{question.budget} = {size}"],
        ["state", f"{outcome.state}; {counts(outcome)}; seed {question.seed}"],
        ["loss", f"{metric.title} [{metric.unit_in_words}]; lower is better"],
    ]
    if question.max_decode_ms is not None:
        rows.append(["decode at most", f"{question.max_decode_ms:g} ms/token, predicted from timed layers"])
    if outcome.trials.original_perplexity is not None:
        rows.append(["perplexity of the original", f"{outcome.trials.original_perplexity:.4g} on the search set"])
    return ["", ""], rows


def _blocks(folder: Path) -> Table | None:
    """Each block's angular distance beside its predicted loss when dropped; None if either is missing."""
    try:
        stored = read_sensitivity(folder / SENSITIVITY)
    except StudyError:
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


def _storage(outcome: Outcome) -> list[str]:
    best = outcome.best
    if best is None:
        return []
    used = sorted(
        {step.method for _, choice in best.plan.entries for step in choice.steps if step.storage.storage_only}
    )
    if not used:
        return []
    return [
        f"Storage only ({' and '.join(used)}): these layers are smaller on disk; in memory they are dense and run no "
        "faster."
    ]


def _front(outcome: Outcome) -> Table:
    timed = any(trial.times.decode_ms is not None for trial in outcome.trials.front)
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
    for trial in outcome.trials.front:
        mark = " (winner)" if trial.number == outcome.decision.winner else ""
        spread = f"{trial.loss:.4g} ± {trial.half_width:.1g}"
        row = [
            f"{trial.number}{mark}",
            f"{trial.size_bytes:,}",
            f"{100 * trial.size_bytes / outcome.question.original_bytes:.1f} %",
            spread,
        ]
        row += [number_text(trial.perplexity), f"{trial.origin}: {trial.label}"]
        rows.append(
            row + ([f"{trial.times.decode_ms:.3g}" if trial.times.decode_ms is not None else ""] if timed else [])
        )
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
    made = outcome.circumstances
    seconds = [[step, f"{spent:.0f} s"] for step, spent in made.seconds.items()]
    environment = [[str(key), str(value)] for key, value in made.environment.items()]
    fingerprints = [[f"{name} texts, sha256", digest[:16]] for name, digest in made.data_sha256.items()]
    return ["step, version or text", ""], [*seconds, *environment, *fingerprints]
