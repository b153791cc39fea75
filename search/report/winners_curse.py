"""Survival of the gain: how much of the gain on the search set, which chose the trial, is left on fresh texts."""

from __future__ import annotations

from paredown.search.outcome.outcome import Outcome
from paredown.search.report.rendering import Section
from paredown.search.trial import Record


def survival_words(outcome: Outcome) -> str:
    """Sentence that says how much of the gain survived; empty without a comparison."""
    found = outcome.decision.survival
    if found is None:
        return ""
    gained, left = 100 * (1 - found.search.mean), 100 * (1 - found.fresh.mean)
    spread = f"95 % interval {100 * (1 - found.fresh.high):.1f} to {100 * (1 - found.fresh.low):.1f} %"
    plans = len(outcome.trials.measured) + outcome.trials.stopped_early
    told = f"The trials gained {gained:.1f} % over the solver's first plan on the search set, which chose among "
    told += f"{plans} plans; {left:.1f} % are left on fresh texts ({spread})"
    if left <= 0:
        return f"{told}: none of the gain survived."
    return f"{told}: " + (
        f"{100 * (1 - left / gained):.0f} % of the gain did not survive." if left < gained else "all of it survived."
    )


def luck_words(outcome: Outcome) -> str:
    """The same sentence if the gain is significant on the search set but not on fresh texts; otherwise empty."""
    found = outcome.decision.survival
    return f" {survival_words(outcome)}" if found and found.search.high < 1 <= found.fresh.high else ""


def survival_section(outcome: Outcome) -> Section:
    """The finalists' losses on both sets, each compressed as the trials had it."""
    title = "The search set against fresh texts"
    finalists = [record for record in outcome.trials.measured if record.number in outcome.decision.selection]
    if not finalists:
        return Section(title=title)
    fresh = {record.number: _alone(outcome, record) for record in finalists}
    solver = next(
        (record for record in finalists if record.origin == "solver" and outcome.question.allows(record)), None
    )
    rows = []
    for record in sorted(finalists, key=lambda record: (record.loss, record.number)):
        row = [f"{record.number}: {record.label}", f"{record.loss:.4g}", f"{fresh[record.number]:.4g}"]
        if solver and solver.loss > 0 and fresh[solver.number] > 0:
            row += [f"{record.loss / solver.loss:.3f}", f"{fresh[record.number] / fresh[solver.number]:.3f}"]
        rows.append(row)
    over = (
        [f"over trial {solver.number}, the solver's: search set", "fresh texts"]
        if rows and solver and len(rows[0]) > 3
        else []
    )
    told = (
        "Each finalist is compressed as in its trial and measured on the search set, which chose it, and on the "
        "selection set, which no trial read (fresh texts)."
    )
    words = survival_words(outcome)
    return Section(
        title=title,
        paragraphs=[told, *([words] if words else [])],
        table=(["trial", "search set", "fresh texts", *over], rows),
    )


def _alone(outcome: Outcome, record: Record) -> float:
    refit = outcome.decision.refits.get(record.number)
    return refit.alone if refit else outcome.decision.selection[record.number].mean
