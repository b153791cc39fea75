"""Solve, measure, learn, solve again: paredown's own sampler."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import optuna

from paredown.search.record import Record
from paredown.search.samplers import Proposal, Question, samplers
from paredown.search.solver import Losses
from paredown.search.surrogate import Surrogate
from paredown.space.choice import Choice
from paredown.space.plan import Plan

SHARE_AT_BUDGET = 0.7
SHARE_OF_MOVES = 0.4
PARENTS = 4
MOVES = 200
TRIES = 12


@samplers.register("frontier")
class FrontierSampler:
    """Plans that the solver finds under what was learnt so far, and byte-conserving moves around the best measured ones.

    Seven trials in ten are spent at the budget, the others along the front. A draw from the surrogate's posterior in place
    of its mean makes the solver explore (Thompson sampling). No plan is proposed twice.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.smallest = question.solver.smallest().size_bytes(question.space.inventory)

    def optuna_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Nothing is suggested through Optuna."""
        return optuna.samplers.RandomSampler(seed=self.question.seed + number)

    def propose(self, trial: optuna.Trial, history: Sequence[Record], failed: frozenset[Plan] = frozenset()) -> Proposal:
        """A plan that was not tried yet."""
        question = self.question
        generator = np.random.default_rng([question.seed, trial.number])
        surrogate = Surrogate(question.space.inventory, question.losses, history)
        expected = surrogate.expected()
        known = failed | {record.plan for record in history}
        budget = self._budget(generator)
        if generator.random() < SHARE_OF_MOVES and (moved := self._move(generator, history, expected, budget, known)):
            return Proposal(plan=moved, label="moved bytes", predicted_loss=surrogate.predict(moved, expected))
        best_mean = question.solver.solve(expected, question.budget_bytes)
        if best_mean not in known:
            return Proposal(plan=best_mean, label="solved for what was learnt", predicted_loss=surrogate.predict(best_mean, expected))
        for _ in range(TRIES):
            plan = question.solver.solve(surrogate.draw(generator), budget)
            if plan not in known:
                return Proposal(plan=plan, label="solved under a draw", predicted_loss=surrogate.predict(plan, expected))
            budget = self._budget(generator)
        moved = self._move(generator, history, expected, question.budget_bytes, known)
        plan = moved or best_mean
        return Proposal(plan=plan, label="moved bytes" if moved else "solved again", predicted_loss=surrogate.predict(plan, expected))

    def _budget(self, generator: np.random.Generator) -> int:
        top = self.question.budget_bytes
        if generator.random() < SHARE_AT_BUDGET:
            return top
        high = min(2 * top, self.question.space.inventory.original_bytes)
        drawn = int(np.exp(generator.uniform(np.log(max(self.smallest, top // 2)), np.log(max(high, top)))))
        return max(drawn, self.smallest)  # logarithm and exponential may round below it

    def _move(
        self, generator: np.random.Generator, history: Sequence[Record], expected: Losses, budget: int, known: Set[Plan]
    ) -> Plan | None:
        """The most promising of some plans that give one site more bytes and take them from another."""
        space, inventory = self.question.space, self.question.space.inventory
        fitting = sorted((r for r in history if r.size_bytes <= budget and space.allows(r.plan)), key=lambda r: (r.loss, r.number))
        parents = [record.plan for record in fitting[:PARENTS]]
        sites = [site for site in inventory.leaves if len(space.options[site.name]) > 1]
        if not parents or len(sites) < 2:
            return None
        sizes = dict(zip(self.question.solver.variables, self.question.solver.sizes, strict=True))
        best: tuple[float, Plan] | None = None
        for _ in range(MOVES):
            parent = parents[int(generator.integers(len(parents)))]
            choices: dict[str, Choice] = {site.name: choice for site, choice in parent.decided(inventory)}
            free = budget - parent.size_bytes(inventory)
            for index in generator.choice(len(sites), 2, replace=False):
                name = sites[index].name
                if name not in choices:
                    continue
                options = [c for c in space.options[name] if c != choices[name]]
                new = options[int(generator.integers(len(options)))]
                free -= int(sizes[name, new] - sizes[name, choices[name]])
                choices[name] = new
            if free < 0:
                continue
            plan = Plan.of(inventory, choices)
            loss = sum(expected[s.name, c] for s, c in plan.decided(inventory))
            if plan not in known and (best is None or loss < best[0]):
                best = (loss, plan)
        return best[1] if best else None
