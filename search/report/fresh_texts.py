"""Sections on fresh texts: the winner's loss by set, the held-out comparison, and plans compressed in order."""

from __future__ import annotations

from paredown.search.outcome.decision import Comparison
from paredown.search.outcome.outcome import Outcome
from paredown.search.report.rendering import Section, Table, number_text
from paredown.search.trial import Trial


def sets_section(outcome: Outcome) -> Section:
    """The best plan's loss on each set that measured it; empty without a plan within the budget."""
    title, best = "Where the loss was measured", outcome.best
    return (
        Section(title=title, paragraphs=_curse(outcome), table=_sets(outcome, best)) if best else Section(title=title)
    )


def guard_section(outcome: Outcome) -> Section:
    """The held-out comparisons; empty without one."""
    title = "Against plans made without a search"
    if not outcome.decision.comparisons:
        return Section(title=title)
    return Section(title=title, paragraphs=_guard(outcome), table=_compared(outcome))


def refits_section(outcome: Outcome) -> Section:
    """What compressing in order brought for each finalist; empty if no finalist was."""
    title = "Compressed in order"
    if not outcome.decision.refits:
        return Section(title=title)
    return Section(title=title, paragraphs=_refit_words(outcome), table=_refits(outcome))


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


def _sets(outcome: Outcome, best: Trial) -> Table:
    rows = [
        [
            "search",
            f"{best.loss:.4g}",
            f"{best.loss - best.half_width:.4g} to {best.loss + best.half_width:.4g}",
            "",
            number_text(best.perplexity),
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
                    number_text(finding.perplexity),
                ]
            )
    if best.expected.loss is not None:
        rows.append(["predicted, not measured", f"{best.expected.loss:.4g}", "", "", ""])
    return ["set", f"loss of trial {best.number}", "95 % interval over documents", "documents", "perplexity"], rows


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


def _compared(outcome: Outcome) -> Table:
    names = {"uniform": "best uniform plan within the budget", "solver": "solver's plan, before any trial"}

    def row(name: str, comparison: Comparison) -> list[str]:
        other = outcome.trials[comparison.number]
        finding = outcome.decision.held_out.get(other.number)
        mean = f"{finding.mean:.4g}" if finding else ""
        ratio = f"{comparison.mean:.3f} ({comparison.low:.3f} to {comparison.high:.3f})"
        return [f"{names.get(name, name)}: {other.label} (trial {other.number})", f"{other.size_bytes:,}", mean, ratio]

    decision = outcome.decision
    rows = [row(name, comparison) for name, comparison in decision.comparisons.items()]
    if decision.searched is not None and (finding := decision.held_out.get(decision.searched)):
        ours = outcome.trials[decision.searched]
        rows.insert(
            0,
            [f"search's best: {ours.label} (trial {ours.number})", f"{ours.size_bytes:,}", f"{finding.mean:.4g}", "1"],
        )
    return ["plan", "bytes", "held-out loss", "search's best over it (95 % interval)"], rows


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
