"""Optuna's own samplers, for comparison and for those who trust them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import optuna

from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question, samplers
from paredown.space.choice import KEEP
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan

Maker = Callable[[int], optuna.samplers.BaseSampler]


class OptunaSampler:
    """A categorical parameter a site; a sampler of Optuna suggests them.

    It is made anew for every trial, seeded by the study's seed and the trial's number, and reads what it knows from the
    database: so a study that was interrupted goes on as if it had not been.
    """

    def __init__(self, make: Maker, question: Question) -> None:
        self._make = make
        self.question = question
        space = question.space
        self._options = {
            site.name: {str(c): c for c in (() if site.is_leaf else (KEEP,)) + space.options[site.name]} for site in space.searched
        }
        self._fixed = {s.name: space.options[s.name][0] for s in space.inventory.leaves if len(space.options[s.name]) == 1}

    def optuna_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Seeded for this trial."""
        return self._make(self.question.seed * 1_000_003 + number)

    def propose(self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """What Optuna suggests; where it leaves out more than it may, the last ones stay."""
        inventory = self.question.space.inventory
        chosen = {name: options[trial.suggest_categorical(name, list(options))] for name, options in self._options.items()}
        plan = Plan.of(inventory, self._fixed | chosen)
        while plan.drops(inventory) > self.question.space.max_drops:  # a block that stays may have a half that does not
            last = [site.name for site, choice in plan.decided(inventory) if leaves_out(site, choice)][-1]
            chosen[last] = KEEP
            plan = Plan.of(inventory, self._fixed | chosen)
        return Proposal(plan=plan, label="suggested")


def _nsga3(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.NSGAIIISampler(seed=seed)


samplers.register("random")(partial(OptunaSampler, lambda seed: optuna.samplers.RandomSampler(seed=seed)))
samplers.register("tpe")(partial(OptunaSampler, lambda seed: optuna.samplers.TPESampler(seed=seed)))
samplers.register("nsga2")(partial(OptunaSampler, lambda seed: optuna.samplers.NSGAIISampler(seed=seed)))
samplers.register("nsga3")(partial(OptunaSampler, _nsga3))
