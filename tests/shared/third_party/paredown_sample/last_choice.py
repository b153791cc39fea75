"""A sampler that gives all sites their last option."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from paredown.search.samplers import Problem, Proposal
from paredown.search.trial import Trial
from paredown.space.plan import Plan


class LastChoice:
    """Proposes the last option of every site, except for the site that the trial's number says, which gets its first.

    Args:
        problem: The problem.
    """

    def __init__(self, problem: Problem) -> None:
        self.space = problem.space

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """The plan to measure next."""
        leaves, options = self.space.inventory.leaves, self.space.options
        first = leaves[trial.number % len(leaves)]
        choices = {site.name: options[site.name][0 if site == first else -1] for site in leaves}
        return Proposal(plan=Plan.of(self.space.inventory, choices), label=f"first option at {first.name}")
