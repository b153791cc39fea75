"""Time that the frontier sampler takes to propose a plan, on a synthetic model with a random history.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.proposals [trials]

Model: Llama-shaped, 75 blocks with 4 ties, 12 choices per site, with and without drops; losses as in
benchmarks/runs/solver.py. History: plans of the solver and moves from them, each with the sum of its losses times noise
(lognormal, sigma 0.05). A trial is added after each proposal, as in a study. One process, one thread, processor time.
The first proposal after a restart is reported separately, because it reads the whole history.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from itertools import product

import numpy as np
import optuna

from benchmarks.runs.solver import inventory, losses
from paredown.search.neighbours.byte_moves import Moves
from paredown.search.samplers import Problem
from paredown.search.samplers.frontier import FrontierSampler
from paredown.search.solver.solver import Losses, Solver
from paredown.search.trial import Reading, Trial
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets

PARENTS, PROPOSALS = 40, 20


def recorded(number: int, plan: Plan, size: int, found: Losses, space: Space, generator: np.random.Generator) -> Trial:
    """A simulated trial of a plan."""
    loss = sum(found[site.name, choice] for site, choice in plan.decided(space.inventory)) * float(
        np.exp(generator.normal(0, 0.05))
    )
    return Trial(
        number=number,
        origin="frontier",
        label="",
        plan=plan,
        size_bytes=size,
        loss=loss,
        standard_error=0.0,
        perplexity=None,
        read=Reading(sequences=(loss,)),
    )


def history(solver: Solver, found: Losses, count: int, generator: np.random.Generator) -> Iterator[Trial]:
    """Simulated trials: plans of the solver, and moves from them."""
    space, low = solver.space, solver.smallest().size_bytes(solver.space.inventory)
    moves, parents = Moves(solver, lambda _: found), {}
    for budget in np.geomspace(low, 2 * low, PARENTS).astype(int).tolist():
        plan = solver.solve(found, budget)
        parents[plan] = plan.size_bytes(space.inventory)
    for number, (plan, size) in enumerate(parents.items()):
        yield recorded(number, plan, size, found, space, generator)
    number = len(parents)
    for move in moves.drawn(generator, parents, 4 * low, 4 * count):
        if number == count:
            break
        yield recorded(number, moves.plan(move), move.size_bytes, found, space, generator)
        number += 1


def measured(space: Space, count: int, focus: str) -> str:
    """Proposal times with a history of ``count`` trials, as text [s]."""
    generator = np.random.default_rng(0)
    solver, found = Solver(space), losses(space, generator)
    budget = int(1.3 * solver.smallest().size_bytes(space.inventory))
    records = list(history(solver, found, count, generator))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    study = optuna.create_study(directions=["minimize", "minimize"])
    sampler = FrontierSampler(
        Problem(space=space, solver=solver, losses=found, budget_bytes=budget, seed=0, focus=focus)
    )
    seconds = []
    for _ in range(1 + PROPOSALS):
        trial = study.ask()
        started = time.process_time()
        plan = sampler.propose(trial, records).plan
        seconds.append(time.process_time() - started)
        records.append(recorded(len(records), plan, plan.size_bytes(space.inventory), found, space, generator))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    later = f"then {np.median(seconds[1:]):.3f} s, at most {max(seconds[1:]):.3f}"
    return f"first {seconds[0]:.2f} s, {later}; {grown:.0f} MiB more"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"300 sites x 12 choices, {count} trials")
    choices = [f"quantize bits={bits} group_size={group}" for bits, group in product((2, 3, 4, 5, 6, 8), (64, 128))]
    for drops, focus in product((0, 18), ("budget", "front")):
        wishes = SpaceFile.model_validate(
            {"choices": {"linear": choices, "block": ["drop"] if drops else []}, "max_drops": drops}
        )
        space = Space.build(inventory(75, 8192, 28672, 1024), targets["paredown"], wishes)
        print(f"at most {drops} drops, focus {focus}: {measured(space, count, focus)}", flush=True)


if __name__ == "__main__":
    main()
