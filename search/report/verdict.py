"""The result of a study in sentences."""

from __future__ import annotations

from pathlib import Path

from paredown.evaluators.metrics import metrics
from paredown.search.outcome.decision import Decision, Finding
from paredown.search.outcome.outcome import Outcome, Provisional
from paredown.search.report.winners_curse import luck_words
from paredown.search.trial import Trial
from paredown.search.trials.counts import plans_measured, worth


def verdict(outcome: Outcome) -> str:
    """One sentence on the result."""
    best, decision = outcome.best, outcome.decision
    if outcome.provisional:
        return provisional_words(outcome, outcome.provisional)
    if best is None:
        return f"No measured plan is within the budget of {outcome.question.budget_bytes:,} bytes yet."
    share = share_text(best, outcome)
    if outcome.state != "finished" or decision.winner is None:
        loss = loss_text(outcome, best)
        return (
            f"The best plan so far is trial {best.number} ({share}): {loss} on the search set; "
            "the winner is not chosen yet."
        )
    comparison = decision.comparisons.get("uniform")
    if comparison is None:
        return f"The winner is trial {best.number} ({share}){_uncompared(decision)}."
    spread = f"95 % interval {comparison.low:.3f} to {comparison.high:.3f} over {documents(outcome)}"
    interval = f"{comparison.mean:.3f} of the best uniform plan's, {spread}"
    if decision.gains:
        return f"The winner is trial {best.number} ({share}). Its held-out loss is {interval}.{against_solver(outcome)}"
    return (
        f"No significant gain: the uniform plan wins (trial {best.number}, {share}). "
        f"The search's best has a held-out loss of {interval}."
    )


def _uncompared(decision: Decision) -> str:
    """Why the winner was not compared with a uniform plan."""
    if decision.unguarded:
        return f", unguarded: {decision.unguarded}"
    if decision.winner == decision.uniform and decision.searched is None:
        where = "no searched plan is within the budget"
    elif decision.uniform is None:
        where = "no other uniform plan is within the budget"
    else:
        where = "the search's best is the uniform plan itself"
    return f"; {where}, so there is no comparison with a uniform plan"


def provisional_words(outcome: Outcome, plan: Provisional) -> str:
    """One sentence on the plan that can be applied before the first trial."""
    share = share_text(plan, outcome)
    if plan.predicted_loss is None:
        return (
            f"No plan was measured yet. The plan is the largest uniform plan within the budget ({plan.label}; {share})."
        )
    return (
        f"No plan was measured yet. The plan is the solver's ({share}), "
        f"with a predicted loss of {plan.predicted_loss:.3g}."
    )


def share_text(plan: Trial | Provisional, outcome: Outcome) -> str:
    """A plan's bytes, and their share of the original's."""
    share = 100 * plan.size_bytes / outcome.question.original_bytes
    return f"{plan.size_bytes:,} bytes, {share:.1f} % of the original"


def early_words(outcome: Outcome) -> list[str]:
    """Sentences on why patience ended the trials, and on what there was no time for."""
    trials, decision, words = outcome.trials, outcome.decision, []
    if trials.ended:
        words.append(f"The trials ended early, after {worth(trials.spent)}: {trials.ended}.")
    if decision.unselected:
        words.append(f"The choice is weak: {decision.unselected}.")
    if decision.unguarded:
        words.append(f"The plan is unguarded: {decision.unguarded}.")
    if decision.completion:
        words.append(f"To complete it with more time: {decision.completion}")
    return words


def against_solver(outcome: Outcome) -> str:
    """One sentence on whether the trials improved on the solver's first plan; empty without a comparison."""
    if outcome.decision.searched is not None and outcome.trials[outcome.decision.searched].origin == "solver":
        return " It is the solver's initial plan: no trial beat it significantly on the selection set." + luck_words(
            outcome
        )
    comparison = outcome.decision.comparisons.get("solver")
    if comparison is None:
        return ""
    spread = f"{comparison.mean:.3f} of that plan's loss, {comparison.low:.3f} to {comparison.high:.3f}"
    if comparison.high < 1:
        return f" The trials improved on the solver's first plan: {spread}."
    return f" The trials gained nothing significant over the solver's first plan: {spread}."


def price_words(outcome: Outcome) -> list[str]:
    """One sentence on what 1 % more of each budget would buy; empty where the prices are unknown."""
    solved = next((trial.expected.loss for trial in outcome.trials.measured if trial.origin == "solver"), None)
    budgets = {
        "size_bytes": ("bytes", outcome.question.budget_bytes),
        "decode_ms": ("decode time", outcome.question.max_decode_ms),
    }
    bought = {
        budgets[name][0]: price * (budgets[name][1] or 0) for name, price in outcome.prices.items() if name in budgets
    }
    if not solved or solved < 0 or not bought:
        return []
    told = " and ".join(
        f"1 % more {name} would buy about {share / solved:.2g} % less loss" for name, share in bought.items()
    )
    return [f"At this budget {told}, as the search predicted it before the first trial."]


def documents(outcome: Outcome) -> str:
    """The number of held-out documents behind the interval, in words."""
    finding = next(iter(outcome.decision.held_out.values()), None)
    return f"{finding.documents} documents" if finding else "documents"


def loss_text(outcome: Outcome, trial: Trial) -> str:
    """A trial's loss on the search set, with unit and 95 % interval."""
    metric = metrics[outcome.question.metric]
    return f"{metric.title} {trial.loss:.4g} ± {trial.half_width:.1g} {metric.unit}".rstrip()


def summary_lines(outcome: Outcome, folder: Path) -> list[str]:
    """Lines for ``paredown status`` and for the end of a search."""
    question = outcome.question
    lines = [
        f"{question.model}, target {question.target}, budget {question.budget} = {question.budget_bytes:,} bytes: "
        f"{outcome.state}, {counts(outcome)}, {len(outcome.trials.front)} on the front",
        verdict(outcome),
        *early_words(outcome),
    ]
    if (best := outcome.best) and (finding := outcome.decision.held_out.get(best.number)):
        lines.append(f"held-out {finding_text(outcome, finding)}")
    if outcome.best or outcome.provisional:
        lines.append(f"plan: {folder / 'best' / 'plan.yaml'}; report: {folder / 'report.html'}")
    return lines


def counts(outcome: Outcome) -> str:
    """Tokens read, and the numbers of plans measured, stopped early, and failed."""
    trials = outcome.trials
    return f"{worth(trials.spent)}: {plans_measured(len(trials.measured), trials.stopped_early, trials.failed)}"


def finding_text(outcome: Outcome, finding: Finding) -> str:
    """A measurement on fresh texts, in words."""
    metric = metrics[outcome.question.metric]
    perplexity = f"; perplexity {finding.perplexity:.4g}" if finding.perplexity is not None else ""
    value = f"{metric.title} {finding.mean:.4g} {metric.unit}".rstrip()
    return (
        f"{value}, 95 % interval over {finding.documents} documents {finding.low:.4g} to {finding.high:.4g}{perplexity}"
    )
