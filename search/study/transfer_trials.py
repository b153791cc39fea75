"""Transfer of a plan to another model: it is measured there, improved by a few moves, and judged as in a study."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paredown.search.cost.cost import tokens_of_checks
from paredown.search.finalists.decide import decide
from paredown.search.finalists.finalists import UNIFORM
from paredown.search.finalists.rebuild import rebuilder
from paredown.search.neighbours.byte_moves import Moves
from paredown.search.neighbours.repair import nearby
from paredown.search.outcome.outcome import Outcome, Trials
from paredown.search.outcome.question import Question
from paredown.search.sensitivity.measurement_cache import facts_of
from paredown.search.sensitivity.measurements import Evidence
from paredown.search.solver.solver import Losses, Solver
from paredown.search.trial import Expectation, Trial, best_within
from paredown.search.trials.uniform import uniform_plans
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import KEEP
from paredown.space.errors import EvaluationError
from paredown.space.layouts import stored_bytes
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import Override, SpaceFile, StudyFile
from paredown.space.system.interruption import stop_if_asked

if TYPE_CHECKING:
    from paredown.search.outcome.progress import Progress

RUNG = 4
"""Uniform plans are ranked by their data-free siblings on the first 1/RUNG of the search set."""

MOVES = 2000
"""Moves drawn for each one that is measured."""

LEAST, MOST = 0.6, 1.6
"""Least and most bytes of the choices that moves may take, as a share of the plan's own choice."""

FIRST, MOVED = "solver", "transfer"
"""Origins of trials: the plan itself, which `decide` treats as it does a solver's plan, and plans with moved bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Result of a transfer.

    Attributes:
        outcome: Outcome as of a search: finalists, winner, comparison with the best uniform plan.
        tokens: Tokens read in forward passes.
    """

    outcome: Outcome
    tokens: int


def near_study(study_file: StudyFile, space: Space, plan: Plan) -> StudyFile:
    """The study with a space of uniform plans and choices near a plan, so that statistics cover only these."""
    near = nearby(space, plan)
    uniform = [found.plan for found in uniform_plans(space, space.inventory.original_bytes)]
    overrides = []
    for site in space.inventory.sites:
        choices = dict.fromkeys([*near.options[site.name], *(other[site.name] for other in uniform if site.is_leaf)])
        if choices:
            overrides.append(Override(match=site.name, choices=[choice.to_mapping() for choice in choices]))
    wishes = SpaceFile(
        choices={"block": [], "attention": [], "ffn": []}, overrides=overrides, ties=study_file.space.ties
    )
    drops = plan.drops(space.inventory)
    return study_file.model_copy(update={"space": wishes.model_copy(update={"max_drops": drops}), "latency": "off"})


class Transfer:
    """A plan tried on a model that it was not made for.

    Args:
        bench: Workbench of the model, made for `near_study`.
        space: Full space that a search of the model would have.
        plan: The plan, within the budget.
        budget_bytes: Most bytes.
        progress: Receives the progress.
    """

    def __init__(self, bench: Workbench, space: Space, plan: Plan, budget_bytes: int, progress: Progress) -> None:
        self.bench, self.space, self.plan, self.budget_bytes, self.progress = bench, space, plan, budget_bytes, progress
        self.trials: list[Trial] = []
        self.passes = 0.0
        self._alone_tokens = 0.0

    def run(self, trials: int) -> Measured:
        """Measures the plan, ``trials`` moves and uniform plans on the search set; then decides as a search does.

        Raises:
            EvaluationError: If neither the plan nor a uniform one within the budget can be measured.
        """
        first = self._measured(FIRST, "transferred", self.plan)
        if first and trials:
            self._move(first, trials)
        self._uniform()
        if not self.trials:
            raise EvaluationError(
                "neither the plan nor a uniform one gives finite predictions on this model; run a new search"
            )
        outcome = self._outcome()
        with rebuilder(self.bench) as rebuild:
            decision = decide(outcome, rebuild.measure, self.bench.is_calibrated, self.progress.step)
        calibrated = any(self.bench.is_calibrated(trial.plan) for trial in outcome.trials.measured)
        tokens = self.bench.study_file.tokens
        read = tokens.calibration + self._alone_tokens + tokens.search * (1 + self.passes)
        checks = tokens_of_checks(tokens, len(decision.selection), len(decision.held_out), calibrated=calibrated)
        return Measured(outcome=replace(outcome, decision=decision), tokens=round(read) + checks)

    def _promising(self) -> list[Trial]:
        """The plan, the best move if it is better on the search set, and the uniform plans."""
        first = [trial for trial in self.trials if trial.origin == FIRST]
        best = best_within([trial for trial in self.trials if trial.origin != "uniform"], self.budget_bytes)
        moved = [best] if best and best.origin == MOVED else []
        return [*first, *moved, *(trial for trial in self.trials if trial.origin == "uniform")]

    def _measured(self, origin: str, label: str, plan: Plan, predicted: float | None = None) -> Trial | None:
        """A trial; None if a prediction is not finite."""
        started = time.monotonic()
        self.bench.banks.fill([*plan.decided(self.space.inventory)])
        try:
            quality = self.bench.evaluator.measure(plan)
        except EvaluationError as error:
            self.progress.say(f"{label}: {error}")
            return None
        finally:
            self.passes += 1
        trial = Trial.of(
            plan,
            quality,
            self.space.inventory,
            number=len(self.trials),
            origin=origin,
            label=label,
            expected=Expectation(loss=predicted),
            seconds=time.monotonic() - started,
        )
        self.trials.append(trial)
        return trial

    def _uniform(self) -> None:
        """Measures the best few uniform plans, ranked by their data-free siblings on part of the search set."""
        fitting = [
            found for found in uniform_plans(self.space, self.budget_bytes) if found.size_bytes <= self.budget_bytes
        ]
        rung = max(1, len(self.bench.texts.sequences["search"]) // RUNG)
        ranks: dict[Plan, float] = {}
        for done, found in enumerate(fitting if len(fitting) > UNIFORM + 1 else ()):
            self.progress.step("uniform plans", done, len(fitting))
            sibling = Plan(tuple((site, choice.data_free or choice) for site, choice in found.plan.entries))
            self.bench.banks.fill([*sibling.decided(self.space.inventory)])
            try:
                ranks[found.plan] = self.bench.evaluator.measure_rung(sibling, rung).mean
            except EvaluationError:
                ranks[found.plan] = np.inf
            self.passes += rung / len(self.bench.texts.sequences["search"])
        for found in sorted(fitting, key=lambda found: ranks.get(found.plan, 0.0))[: UNIFORM + 1]:
            self._measured("uniform", found.label, found.plan)

    def _move(self, first: Trial, trials: int) -> None:
        """Measures plans with bytes moved between sites; the first solves for this model's own sensitivities."""
        space = self._movable()
        losses = self._losses(space)
        solver, generator = Solver(space), np.random.default_rng(self.bench.study_file.seed)
        moves, best, tried = Moves(solver, lambda _: losses), first, {first.plan}
        for done in range(trials):
            stop_if_asked()
            self.progress.step("moves", done, trials)
            parents = {best.plan: best.size_bytes}
            drawn = sorted(
                moves.drawn(generator, parents, self.budget_bytes, MOVES), key=lambda move: (move.loss, move.size_bytes)
            )
            wanted = [
                (solver.solve(losses, self.budget_bytes), None),
                *((moves.plan(move), move.loss) for move in drawn),
            ]
            found = next(((plan, loss) for plan, loss in wanted if plan not in tried), None)
            if found is None:
                return
            tried.add(found[0])
            trial = self._measured(MOVED, "moved bytes", *found)
            if trial and trial.loss < best.loss:
                best = trial

    def _movable(self) -> Space:
        """Space of the moves: choices of similar size at leaves that the plan compresses, elsewhere its own choice."""
        near, inventory = nearby(self.space, self.plan), self.space.inventory
        options = dict(near.options)
        for site, own in self.plan.decided(inventory):
            sizes = {
                choice: stored_bytes(site, choice) / max(stored_bytes(site, own), 1)
                for choice in near.options[site.name]
            }
            alike = [choice for choice, size in sizes.items() if LEAST <= size <= MOST]
            options[site.name] = tuple(dict.fromkeys([own, *(alike if site.is_leaf and own != KEEP else ())]))
        return replace(near, options=options)

    def _losses(self, space: Space) -> Losses:
        """Sensitivities on this model.

        The plan's own choice at each site is measured alone. At linear sites the ratio of output errors carries its
        loss to the other choices; at embeddings these are measured too. Sites that the plan overrules get a penalty
        that keeps them out.
        """
        inventory = space.inventory
        decided = {site.name: choice for site, choice in self.plan.decided(inventory)}
        sites = [site for site in inventory.sites if site.name in decided]
        pairs = [(site, choice) for site in sites for choice in space.options[site.name] if choice != KEEP]
        self.bench.banks.fill(pairs)
        texts = self.bench.texts.sequences["search"]
        evidence = Evidence(space, self.bench.planned, self.bench.bank, texts, facts_of(self.bench.bank))
        alone = evidence.losses_alone(
            [(site, choice) for site, choice in pairs if site.kind != "linear" or choice == decided[site.name]]
        )
        forbidden = 1e3 * sum(alone.values()) + 1.0
        losses = {(name, choice): forbidden for name, choices in space.options.items() for choice in choices} | alone
        losses |= {(name, KEEP): 0.0 for name in decided if KEEP in space.options[name]}
        for name, own in decided.items():
            if own != KEEP and (site := inventory[name]).kind == "linear":
                scale = alone[name, own] / max(evidence.output_error(site, own), 1e-30)
                losses |= {
                    (name, other): scale * evidence.output_error(site, other)
                    for other in space.options[name]
                    if other != own
                }
        evidence.finish()
        self._alone_tokens = evidence.forward_tokens
        return losses

    def _outcome(self) -> Outcome:
        return Outcome(
            state="finished",
            question=Question.of(self.bench.study_file, self.space.inventory, self.budget_bytes),
            trials=Trials(measured=tuple(self._promising()), spent=self.passes),
            circumstances=self.bench.circumstances(),
        )
