"""A study folder made by hand: what a finished search leaves behind, without the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paredown.search.outcome.decision import Comparison, Decision, Finding
from paredown.search.outcome.front_file import write_front_file
from paredown.search.outcome.inventory_file import write_inventory
from paredown.search.outcome.outcome import Circumstances, Outcome, Trials
from paredown.search.outcome.plan_files import publish_plans
from paredown.search.outcome.question import Question
from paredown.search.sensitivity.stored import SensitivityFile
from paredown.search.solver.solver import Solver
from paredown.search.trial import Expectation, Trial
from paredown.search.trials.uniform import uniform_plans
from paredown.space.budget import Budget
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_json
from paredown.space.targets.target import targets

Losses = dict[tuple[str, Choice], float]


def losses_of(space: Space) -> Losses:
    """Losses that fall with the bytes of a choice, differently steep from site to site."""
    losses: Losses = {}
    for place, site in enumerate(space.inventory.sites):
        options = space.options[site.name]
        largest = max(space.sizes(site), default=1) or 1
        for choice, size in zip(options, space.sizes(site), strict=True):
            losses[site.name, choice] = 0.0 if choice == KEEP else (1 + place % 5) * 10 ** (-1 - 4 * size / largest)
    return losses


def trial_of(number: int, origin: str, label: str, plan: Plan, space: Space, losses: Losses) -> Trial:
    """A trial whose loss is 1.2 times the sum of the sensitivities."""
    predicted = sum(losses.get((site.name, choice), 0.01) for site, choice in plan.decided(space.inventory))
    return Trial(
        number=number,
        origin=origin,
        label=label,
        plan=plan,
        size_bytes=plan.size_bytes(space.inventory),
        loss=1.2 * predicted + 1e-4,
        standard_error=0.03 * predicted,
        perplexity=4.0 + predicted,
        expected=Expectation(loss=predicted),
    )


def trials_of(space: Space, losses: Losses, allowed: int) -> list[Trial]:
    """The solver's plan, uniform plans, and plans of the sampler."""
    solver, uniforms = Solver(space), uniform_plans(space, allowed)
    plans = [("solver", "solver at the budget", solver.solve(losses, allowed))]
    plans += [("uniform", uniform.label, uniform.plan) for uniform in uniforms[:4] + uniforms[-2:]]
    plans += [("frontier", "moved bytes", solver.solve(losses, int(allowed * share))) for share in (0.8, 1.3, 1.6)]
    return [trial_of(number, *plan, space, losses) for number, plan in enumerate(plans)]


def finding_of(trial: Trial) -> Finding:
    """A measurement on fresh texts that agrees with the trial."""
    low, high = trial.loss * 0.95, trial.loss * 1.05
    return Finding(mean=trial.loss, low=low, high=high, documents=64, perplexity=trial.perplexity)


def decision_of(best: Trial, rival: Trial, ratio: float) -> Decision:
    """The decision between the search's best and its rival, with the ratio of their held-out losses."""
    found = {trial.number: finding_of(trial) for trial in (best, rival)}
    comparison = Comparison(number=rival.number, mean=ratio, low=ratio * 0.9, high=ratio * 1.1)
    return Decision(
        selection=found,
        held_out=found,
        winner=best.number if comparison.high < 1 else rival.number,
        uniform=rival.number,
        searched=best.number,
        comparisons={"uniform": comparison},
    )


def make_study(
    folder: Path, inventory: Inventory, *, budget: str = "30%", ratio: float = 0.8, state: str = "finished"
) -> Outcome:
    """Writes the folder; the winner's held-out loss is ``ratio`` of the best uniform plan's, give or take a tenth."""
    study_file = StudyFile(model="models/made", data=["text.txt"], budget=Budget.parse(budget), trials=20)
    space = Space.build(inventory, targets[study_file.target], study_file.space)
    losses = losses_of(space)
    allowed = inventory.budget_bytes(study_file.budget)
    trials = trials_of(space, losses, allowed)
    best = trials[0]
    fitting = [r for r in trials if r.origin == "uniform" and r.size_bytes <= best.size_bytes]
    decision = decision_of(best, min(fitting, key=lambda r: r.loss), ratio)
    outcome = Outcome(
        state=state,
        question=replace(Question.of(study_file, inventory, allowed), patience="off"),
        trials=Trials(measured=tuple(trials), original_perplexity=4.0),
        decision=decision if state == "finished" else Decision(),
        circumstances=Circumstances(environment={"paredown": "0.1.0"}),
    )
    study_file.write(folder / "study.yaml")
    write_inventory(inventory, folder)
    rows = [(site, str(choice), loss) for (site, choice), loss in losses.items()]
    known = SensitivityFile(
        key="made", estimator="", forward_tokens=0, backward_tokens=0, losses=rows, angular_distances=[]
    )
    write_json(folder / "sensitivity.json", known.model_dump())
    write_front_file(outcome, folder)
    reference = BaseModelReference(
        name="models/made",
        architecture=inventory.architecture,
        config_sha256="00",
        shapes_sha256=inventory.shapes_sha256(),
    )
    publish_plans(outcome, reference, folder)
    return outcome


def outcome_of(trials: Sequence[Trial], budget_bytes: int | None = None) -> Outcome:
    """A finished search of a toy without a decision; the budget fits the largest plan unless given."""
    most = max(trial.size_bytes for trial in trials) if budget_bytes is None else budget_bytes
    question = Question(
        model="toy",
        architecture="Toy",
        target="paredown",
        metric="kl",
        original_bytes=most,
        parameters=1,
        budget="1B",
        budget_bytes=most,
    )
    return Outcome(state="finished", question=question, trials=Trials(measured=tuple(trials)))


def changed(outcome: Outcome, **values: Any) -> Outcome:
    """The outcome with other values, each in the part that has a field of this name."""
    for part in ("question", "trials", "decision", "circumstances"):
        before = getattr(outcome, part)
        mine = {name: values.pop(name) for name in [*values] if name in before.__slots__}
        outcome = replace(outcome, **{part: replace(before, **mine)})
    assert not values
    return outcome
