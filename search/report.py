"""What a study found, for people: report.md, report.html, trials.csv and the pictures."""

from __future__ import annotations

import base64
import html
import json
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from paredown.search import pictures
from paredown.search.outcome import Comparison, Finding, Outcome
from paredown.search.record import Record
from paredown.space.choice import Choice, methods
from paredown.space.files import write_atomically
from paredown.space.site import Inventory

PICTURE_SECONDS = 120.0
CAPTIONS = {
    pictures.FRONT: "Every measured plan by size and loss on the search set. Down and to the left is better.",
    pictures.CHOICES: "What the plan does to each layer.",
    pictures.SENSITIVITY: "How much each layer matters, as the search predicted it before the first trial.",
}
METRICS = {"kl": ("KL divergence to the original", "nats/token"), "relative-error": ("relative error of the final hidden states", "")}


class Reports:
    """Reports of a search that goes on: text each time, pictures at most every two minutes and at the end."""

    def __init__(self) -> None:
        self._drawn = -PICTURE_SECONDS

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """Writes what is due."""
        now = time.monotonic()
        due = outcome.state != "searching" or now - self._drawn >= PICTURE_SECONDS
        write_report(outcome, folder, draw=due)
        if due:
            self._drawn = time.monotonic()


def write_report(outcome: Outcome, folder: Path, *, draw: bool = True) -> None:
    """Writes all reports of a study, each whole or not at all.

    Args:
        outcome: With one finished trial at least.
        folder: The study folder; its ``inventory.json`` and ``sensitivity.json`` are read for the pictures.
        draw: Whether to draw the pictures anew, too.

    Raises:
        OutputError: If the folder cannot be written.
    """
    write_trials(outcome, folder / "trials.csv")
    if draw:
        draw_pictures(outcome, folder)
    sections = sections_of(outcome, folder)
    write_atomically(folder / "report.md", as_markdown(outcome, sections, folder))
    write_atomically(folder / "report.html", as_html(outcome, sections, folder))


def write_trials(outcome: Outcome, path: Path) -> None:
    """All measured trials as a table, one row each."""
    import pandas as pd

    front = {record.number for record in outcome.front}
    rows = [
        {
            **{key: value for key, value in record.to_mapping().items() if key != "choices"},
            "share_of_original": record.size_bytes / outcome.original_bytes,
            "within_budget": record.size_bytes <= outcome.budget_bytes,
            "on_front": record.number in front,
            "choices": "; ".join(f"{site}: {choice}" for site, choice in record.plan.entries),
        }
        for record in outcome.records
    ]
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))


def draw_pictures(outcome: Outcome, folder: Path) -> None:
    """Draws the front, and the maps where the study folder has what they show."""
    pictures.draw_front(outcome, folder / pictures.FRONT)
    try:
        inventory: Inventory = TypeAdapter(Inventory).validate_json((folder / "inventory.json").read_bytes())
        stored = json.loads((folder / "sensitivity.json").read_bytes())
    except (OSError, ValueError):
        return
    pictures.draw_choices(outcome, inventory, folder / pictures.CHOICES)
    pictures.draw_sensitivity(pictures.read_losses(stored), outcome, inventory, folder / pictures.SENSITIVITY)


# -- what is said ---------------------------------------------------------------------------------------------------------------

Table = tuple[list[str], list[list[str]]]
Section = tuple[str, list[str], Table | None, str | None]
"""A title, paragraphs, a table and the name of a picture."""


def verdict(outcome: Outcome) -> str:
    """In one sentence, what came of it."""
    best = outcome.best
    if best is None:
        return f"No measured plan is within the budget of {outcome.budget_bytes:,} bytes yet."
    share = f"{best.size_bytes:,} bytes, {100 * best.size_bytes / outcome.original_bytes:.1f} % of the original"
    if outcome.state != "finished" or outcome.winner is None:
        loss = loss_text(outcome, best)
        return f"The best plan so far is trial {best.number} ({share}): {loss} on the search set; the winner is not chosen yet."
    comparison = outcome.comparisons.get("uniform")
    if comparison is None:
        where = "no other uniform plan is that small" if outcome.uniform is None else "the search's best is the uniform plan itself"
        if outcome.winner == outcome.uniform and outcome.searched is None:
            where = "no searched plan is within the budget"
        return f"The winner is trial {best.number} ({share}); {where}, so there is no comparison with one."
    spread = f"95 % interval {comparison.low:.3f} to {comparison.high:.3f} over {documents(outcome)}"
    interval = f"{comparison.mean:.3f} of the best uniform plan's, {spread}"
    if outcome.gains:
        return f"The winner is trial {best.number} ({share}). Its held-out loss is {interval}.{against_solver(outcome)}"
    return (
        f"No significant gain: the uniform plan wins (trial {best.number}, {share}). The search's best has a held-out loss of {interval}."
    )


def against_solver(outcome: Outcome) -> str:
    """In one sentence, whether the trials found more than the solver had found before the first of them."""
    if outcome.searched is not None and outcome[outcome.searched].origin == "solver":
        return " It is the solver's plan: the trials found none better."
    comparison = outcome.comparisons.get("solver")
    if comparison is None:
        return ""
    spread = f"{comparison.mean:.3f} of that plan's loss, {comparison.low:.3f} to {comparison.high:.3f}"
    if comparison.high < 1:
        return f" The trials gained over the solver's first plan: {spread}."
    return f" The trials gained nothing significant over the solver's first plan: {spread}."


def documents(outcome: Outcome) -> str:
    """Of how many held-out documents the interval is."""
    finding = next(iter(outcome.held_out.values()), None)
    return f"{finding.documents} documents" if finding else "documents"


def loss_text(outcome: Outcome, record: Record) -> str:
    """A search-set loss with its unit and spread."""
    name, unit = METRICS[outcome.metric]
    return f"{name} {record.loss:.4g} ± {1.96 * record.standard_error:.1g} {unit}".rstrip()


def summary_lines(outcome: Outcome, folder: Path) -> list[str]:
    """What ``paredown status`` and the end of a search say."""
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    lines = [
        f"{outcome.model}, target {outcome.target}, budget {outcome.budget} = {outcome.budget_bytes:,} bytes: "
        f"{outcome.state}, {len(outcome.records)} trials measured{failed}, {len(outcome.front)} on the front",
        verdict(outcome),
    ]
    if (best := outcome.best) and (finding := outcome.held_out.get(best.number)):
        lines.append(f"held-out {finding_text(outcome, finding)}")
    if outcome.best:
        lines.append(f"plan: {folder / 'best' / 'plan.yaml'}; report: {folder / 'report.html'}")
    return lines


def finding_text(outcome: Outcome, finding: Finding) -> str:
    """A fresh measurement in words."""
    name, unit = METRICS[outcome.metric]
    perplexity = f"; perplexity {finding.perplexity:.4g}" if finding.perplexity is not None else ""
    value = f"{name} {finding.mean:.4g} {unit}".rstrip()
    return f"{value}, 95 % interval over {finding.documents} documents {finding.low:.4g} to {finding.high:.4g}{perplexity}"


def sections_of(outcome: Outcome, folder: Path) -> list[Section]:
    """The report, in order."""
    facts = [
        ["model", f"{outcome.model} ({outcome.architecture}, {outcome.parameters:,} parameters)"],
        ["target", outcome.target],
        ["budget", f"{outcome.budget} = {outcome.budget_bytes:,} tensor bytes; the original has {outcome.original_bytes:,}"],
        ["state", f"{outcome.state}; {len(outcome.records)} trials measured, {outcome.failed} failed; seed {outcome.seed}"],
        ["loss", f"{METRICS[outcome.metric][0]} [{METRICS[outcome.metric][1] or 'share'}]; lower is better"],
    ]
    if outcome.original_perplexity is not None:
        facts.append(["perplexity of the original", f"{outcome.original_perplexity:.4g} on the search set"])
    sections: list[Section] = [
        ("Result", [verdict(outcome)], (["", ""], facts), None),
        ("The front", [], None, pictures.FRONT),
    ]
    if outcome.best:
        sections.append(("Where the loss was measured", _curse(outcome), _sets(outcome, outcome.best), None))
    if outcome.comparisons:
        sections.append(("Against plans made without a search", _guard(outcome), _compared(outcome), None))
    sections.append(("The layers", _storage(outcome), None, pictures.CHOICES))
    sections.append(("What the search started from", [], None, pictures.SENSITIVITY))
    sections.append(
        (
            "Plans on the front",
            ["Losses on the search set, which chose these plans: luck flatters them a little."],
            _front(outcome),
            None,
        )
    )
    if outcome.timed or any(record.decode_ms is not None for record in outcome.records):
        sections.append(
            (
                "Speed",
                ["Times of the front are predicted from timed layers; only what was built and run end to end is called measured."],
                _timed(outcome) if outcome.timed else None,
                None,
            )
        )
    seconds = [[step, f"{spent:.0f} s"] for step, spent in outcome.seconds.items()]
    environment = [[str(key), str(value)] for key, value in outcome.environment.items()]
    sections.append(("How it was made", [], (["step, version or text", ""], [*seconds, *environment, *_fingerprints(outcome)]), None))
    there = [(*section[:3], section[3] if section[3] and (folder / section[3]).is_file() else None) for section in sections]
    return [section for section in there if any(section[1:])]


def _curse(outcome: Outcome) -> list[str]:
    text = (
        "The search set chose among all trials, so the winner's number there is flattered by luck; the selection set chose among a few "
        "finalists; the held-out set chose nothing but whether the search's best or the uniform plan is given."
    )
    return [text] if outcome.selection else ["Only the search set was read so far, and it chose this plan: luck flatters its number."]


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
    for name, findings in (("selection", outcome.selection), ("held-out", outcome.held_out)):
        if finding := findings.get(best.number):
            rows.append(
                [name, f"{finding.mean:.4g}", f"{finding.low:.4g} to {finding.high:.4g}", str(finding.documents), _perplexity(finding)]
            )
    if best.predicted_loss is not None:
        rows.append(["predicted, not measured", f"{best.predicted_loss:.4g}", "", "", ""])
    return ["set", f"loss of trial {best.number}", "95 % interval over documents", "documents", "perplexity"], rows


def _perplexity(of: Record | Finding) -> str:
    return "" if of.perplexity is None else f"{of.perplexity:.4g}"


def _guard(outcome: Outcome) -> list[str]:
    if outcome.gains is False:
        return [
            "The 95 % interval of the ratio reaches 1: the search brought no significant gain over the best uniform plan of no more bytes. "
            "So that uniform plan is the winner."
        ]
    return [
        "Both plans of a row were measured on the same held-out documents; the ratio is paired, its interval a bootstrap over documents."
    ]


def _compared(outcome: Outcome) -> Table:
    names = {"uniform": "best uniform plan of no more bytes", "solver": "solver's plan, before any trial"}

    def row(name: str, comparison: Comparison) -> list[str]:
        other = outcome[comparison.number]
        finding = outcome.held_out.get(other.number)
        mean = f"{finding.mean:.4g}" if finding else ""
        ratio = f"{comparison.mean:.3f} ({comparison.low:.3f} to {comparison.high:.3f})"
        return [f"{names.get(name, name)}: {other.label} (trial {other.number})", f"{other.size_bytes:,}", mean, ratio]

    rows = [row(name, comparison) for name, comparison in outcome.comparisons.items()]
    if outcome.searched is not None and (finding := outcome.held_out.get(outcome.searched)):
        ours = outcome[outcome.searched]
        rows.insert(0, [f"search's best: {ours.label} (trial {ours.number})", f"{ours.size_bytes:,}", f"{finding.mean:.4g}", "1"])
    return ["plan", "bytes", "held-out loss", "search's best over it (95 % interval)"], rows


def _storage(outcome: Outcome) -> list[str]:
    best = outcome.best
    if best is None:
        return []
    used = sorted({name for _, choice in best.plan.entries for name in method_names(choice) if methods[name].storage_only})
    if not used:
        return []
    return [f"Storage only: what {' and '.join(used)} saves is saved on disk; those layers are dense in memory and run no faster."]


def method_names(choice: Choice) -> Sequence[str]:
    """The methods of a choice and of what follows it."""
    return [choice.method, *(method_names(choice.then) if choice.then else ())]


def _front(outcome: Outcome) -> Table:
    timed = any(record.decode_ms is not None for record in outcome.front)
    head = ["trial", "bytes", "of the original", "loss ± 95 %", "perplexity", "plan", *(["decode, predicted [ms/token]"] if timed else [])]
    rows = []
    for record in outcome.front:
        mark = " (winner)" if record.number == outcome.winner else ""
        spread = f"{record.loss:.4g} ± {1.96 * record.standard_error:.1g}"
        row = [f"{record.number}{mark}", f"{record.size_bytes:,}", f"{100 * record.size_bytes / outcome.original_bytes:.1f} %", spread]
        row += [_perplexity(record), f"{record.origin}: {record.label}"]
        rows.append(row + ([f"{record.decode_ms:.3g}" if record.decode_ms is not None else ""] if timed else []))
    return head, rows


def _timed(outcome: Outcome) -> Table:
    rows = []
    for name, times in outcome.timed.items():
        spread = [
            "" if times.get(f"{kind}_ms") is None else f"{times[f'{kind}_ms']:.3g} (IQR {times[f'{kind}_iqr']:.2g})"
            for kind in ("decode", "prefill")  # encoders decode nothing
        ]
        rows.append([name if name == "original" else f"trial {name}", *spread])
    return ["measured end to end", "decode [ms/token]", "prefill [ms/token]"], rows


def _fingerprints(outcome: Outcome) -> list[list[str]]:
    return [[f"{name} texts, sha256", digest[:16]] for name, digest in outcome.data_sha256.items()]


# -- how it is written ----------------------------------------------------------------------------------------------------------


def as_markdown(outcome: Outcome, sections: Sequence[Section], folder: Path) -> str:
    """The report as Markdown."""
    parts = [f"# {outcome.model} at {outcome.budget}"]
    for title, paragraphs, table, picture in sections:
        parts += [f"## {title}", *paragraphs]
        if table:
            head, rows = table
            lines = [head, ["---"] * len(head), *rows]
            parts.append("\n".join("| " + " | ".join(value.replace("|", "\\|") for value in line) + " |" for line in lines))
        if picture:
            parts.append(f"![{CAPTIONS[picture]}]({picture})\n\n{CAPTIONS[picture]}")
    return "\n\n".join(parts) + "\n"


STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #26323d; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.verdict { font-size: 1.1rem; background: #eef4fb; border-left: 4px solid #2a6fbb; padding: .8rem 1rem; border-radius: 0 6px 6px 0; }
table { border-collapse: collapse; font-size: .92rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #e3e7eb; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
th { color: #5b6873; font-weight: 600; } img { max-width: 100%; height: auto; } figure { margin: 0; }
figcaption { color: #5b6873; font-size: .92rem; } footer { margin: 3rem 0 1rem; color: #5b6873; font-size: .85rem; }
@media (prefers-color-scheme: dark) { body { background: #14191e; color: #dde3e8; } p.verdict { background: #1b2834; }
  th, td { border-color: #2b353e; } th, figcaption, footer { color: #98a5b0; } img { border-radius: 6px; } }
"""


def as_html(outcome: Outcome, sections: Sequence[Section], folder: Path) -> str:
    """The report as one page that needs no other file."""
    body = [f"<h1>{html.escape(outcome.model)} at {html.escape(outcome.budget)}</h1>"]
    for index, (title, paragraphs, table, picture) in enumerate(sections):
        body.append(f"<h2>{html.escape(title)}</h2>")
        kind = ' class="verdict"' if index == 0 else ""
        body += [f"<p{kind}>{html.escape(text)}</p>" for text in paragraphs]
        if table:
            body.append(_html_table(table))
        if picture:
            data = base64.b64encode((folder / picture).read_bytes()).decode()
            caption = html.escape(CAPTIONS[picture])
            body.append(f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>')
    body.append(f"<footer>paredown {html.escape(str(outcome.environment.get('paredown', '')))}</footer>")
    title = html.escape(f"paredown: {outcome.model} at {outcome.budget}")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{meta}<title>{title}</title><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _html_table(table: Table) -> str:
    head, rows = table
    top = f"<thead><tr>{''.join(f'<th>{html.escape(value)}</th>' for value in head)}</tr></thead>" if any(head) else ""
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{lines}</tbody></table>"
