"""Optuna's samplers, as baselines and as alternatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from paredown.search.samplers import Problem, Proposal, samplers
from paredown.search.trial import Trial
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import leaves_out, site_layout
from paredown.space.plan import Plan
from paredown.space.site import Site
from paredown.space.space import Space
from paredown.space.tensors import total_bytes

Maker = Callable[[int], optuna.samplers.BaseSampler]
Groups = Mapping[str, tuple[Site, ...]]
"""Sites that share a parameter, by the parameter's name."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

POPULATION = 20
"""Population of the genetic samplers; with 150 evaluations it does better than Optuna's default of 50."""


class OptunaSampler:
    """Proposes plans with an Optuna sampler over one categorical parameter for each group of sites.

    Each trial has its own Optuna sampler, seeded by the study's seed and the trial's number, and its own in-memory
    Optuna study, which holds only the finished trials of lower number. Anything that a killed process wrote about the
    trial itself is ignored, so a resumed study makes the same proposals. The plans that a study measures first are
    entered as if Optuna had suggested them.

    Args:
        make: Returns an Optuna sampler for a seed.
        group: Returns the sites that share each parameter.
        problem: The problem to work on.
    """

    def __init__(self, make: Maker, group: Callable[[Space], Groups], problem: Problem) -> None:
        self._make = make
        self.problem = problem
        space = problem.space
        self._groups = group(space)
        self._options = {
            name: {str(c): c for site in sites for c in _options(site, space)} for name, sites in self._groups.items()
        }
        self._fixed = {
            s.name: space.options[s.name][0] for s in space.inventory.leaves if len(space.options[s.name]) == 1
        }

    def seeded(self, trial: optuna.Trial, plan: Plan) -> None:
        """Enters a plan's parameters into a trial; a choice that is not an option becomes the one nearest in bytes."""
        decided = {site.name: choice for site, choice in plan.decided(self.problem.space.inventory)}
        values = {}
        for name, sites in self._groups.items():
            options = list(self._options[name].values())
            site = next((site for site in sites if site.name in decided), sites[0])
            values[name] = str(_nearest(site, decided.get(site.name, KEEP), options))
        self._suggested(trial, values)

    def propose(self, trial: optuna.Trial, history: Sequence[Trial], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """The plan that Optuna suggests; drops above the limit are undone, the last one first."""
        space, inventory = self.problem.space, self.problem.space.inventory
        chosen = dict(self._fixed)
        for name, choice in self._suggested(trial).items():
            for site in self._groups[name]:
                chosen[site.name] = _nearest(site, choice, _options(site, space))
        plan = Plan.of(inventory, chosen)
        while plan.drops(inventory) > space.max_drops:  # undoing the drop of a block may uncover the drop of its half
            last = [site.name for site, choice in plan.decided(inventory) if leaves_out(site, choice)][-1]
            chosen[last] = KEEP
            plan = Plan.of(inventory, chosen)
        return Proposal(plan=plan, label="suggested")

    def _suggested(self, trial: optuna.Trial, fixed: Mapping[str, str] | None = None) -> dict[str, Choice]:
        """The choices that Optuna suggests by group, or the fixed ones; writes them to the trial."""
        asked = self._asked(trial, fixed or {})
        for key, value in asked.system_attrs.items():
            trial.study._storage.set_trial_system_attr(trial._trial_id, key, value)
        trial.study.sampler = _fixed(asked.params, optuna.samplers.RandomSampler(seed=0))
        return {
            name: options[trial.suggest_categorical(name, list(options))] for name, options in self._options.items()
        }

    def _asked(self, trial: optuna.Trial, fixed: Mapping[str, str]) -> optuna.trial.FrozenTrial:
        """The trial that Optuna asks for in a study that holds only the finished trials of lower number."""
        study = optuna.create_study(directions=trial.study.directions)
        before = [
            each for each in trial.study.get_trials(deepcopy=False, states=FINISHED) if each.number < trial.number
        ]
        study.add_trials(before)
        if self._groups:
            self._select_parents(study, before)
        study.sampler = _fixed(fixed, self._make(self._seed(trial.number)))
        study.ask({name: CategoricalDistribution(list(options)) for name, options in self._options.items()})
        return study.get_trials(deepcopy=False)[-1]

    def _select_parents(self, study: optuna.Study, before: Sequence[optuna.trial.FrozenTrial]) -> None:
        """Selects the parents of every generation so far with the sampler of its first trial.

        That is what an uninterrupted process does, so a resumed study has the same parents.
        """
        begun = -1
        for trial in before:
            sampler = self._make(self._seed(trial.number))
            if not isinstance(sampler, optuna.samplers.BaseGASampler):
                return
            generation = sampler.get_trial_generation(study, trial)
            if generation > begun:
                begun = generation
                sampler.get_parent_population(study, generation)

    def _seed(self, number: int) -> int:
        return self.problem.seed * 1_000_003 + number


def by_site(space: Space) -> Groups:
    """One group for each site."""
    return {site.name: (site,) for site in space.searched}


def by_role(space: Space) -> Groups:
    """Two groups for the leaves of each block, feed-forward network and the rest; one for every other site."""
    groups: dict[str, list[Site]] = {}
    feed_forward = {leaf for site in space.inventory.parents if site.kind == "ffn" for leaf in site.covers}
    for site in space.searched:
        role = "feed-forward" if site.name in feed_forward else "attention"
        shared = site.is_leaf and site.block is not None
        groups.setdefault(f"{role} of block {site.block}" if shared else site.name, []).append(site)
    return {name: tuple(sites) for name, sites in groups.items()}


def _options(site: Site, space: Space) -> tuple[Choice, ...]:
    return (() if site.is_leaf else (KEEP,)) + space.options[site.name]


def _nearest(site: Site, choice: Choice, options: Sequence[Choice]) -> Choice:
    """The choice, or the option nearest in bytes if the choice is not an option."""
    if choice in options:
        return choice
    size = total_bytes(site_layout(site, choice))
    return min(options, key=lambda option: abs(total_bytes(site_layout(site, option)) - size))


def _quiet(
    make: Callable[..., optuna.samplers.BaseSampler], *values: object, **knobs: object
) -> optuna.samplers.BaseSampler:
    """A sampler that Optuna marks as experimental, made without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make(*values, **knobs)


def _fixed(values: Mapping[str, str], sampler: optuna.samplers.BaseSampler) -> optuna.samplers.BaseSampler:
    """An Optuna sampler with some parameters fixed."""
    return _quiet(optuna.samplers.PartialFixedSampler, dict(values), sampler)


_MAKERS: dict[str, Maker] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
    "nsga3": lambda seed: _quiet(optuna.samplers.NSGAIIISampler, seed=seed, population_size=POPULATION),
}
for _name, _make in _MAKERS.items():
    samplers.register(_name)(partial(OptunaSampler, _make, by_site))
samplers.register("gp")(partial(OptunaSampler, lambda seed: _quiet(optuna.samplers.GPSampler, seed=seed), by_role))
