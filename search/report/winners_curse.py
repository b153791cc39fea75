"""Survival of the gain: how much of the gain on the search set, which chose the trial, is left on fresh texts."""

from __future__ import annotations

from paredown.search.outcome.outcome import Outcome
from paredown.search.report.rendering import Section
from paredown.search.trial import Trial


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
    finalists = [trial for trial in outcome.trials.measured if trial.number in outcome.decision.selection]
    if not finalists:
        return Section(title=title)
    fresh = {trial.number: _alone(outcome, trial) for trial in finalists}
    solver = next((trial for trial in finalists if trial.origin == "solver" and outcome.question.allows(trial)), None)
    rows = []
    for trial in sorted(finalists, key=lambda trial: (trial.loss, trial.number)):
        row = [f"{trial.number}: {trial.label}", f"{trial.loss:.4g}", f"{fresh[trial.number]:.4g}"]
        if solver and solver.loss > 0 and fresh[solver.number] > 0:
            row += [f"{trial.loss / solver.loss:.3f}", f"{fresh[trial.number] / fresh[solver.number]:.3f}"]
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


def _alone(outcome: Outcome, trial: Trial) -> float:
    refit = outcome.decision.refits.get(trial.number)
    return refit.alone if refit else outcome.decision.selection[trial.number].mean
