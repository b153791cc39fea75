"""Solver times on synthetic models with many sites and choices: no weights, random losses.

OMP_NUM_THREADS=1 python -m benchmarks.runs.solver [points of the front]
"""

from __future__ import annotations

import sys
import time
from itertools import product

import numpy as np

from paredown.search.solver.solver import Losses, Solver
from paredown.space.site import Inventory, Member, Site
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from paredown.space.tensors import TensorSpec

PROTOCOL = """\
Llama-shaped inventories, 4 ties per block (q,k,v; o; gate,up; down), hidden 8192, inner 28672.
Choices: quantize, bits 2, 3, 4, 5, 6, 8 by group size and symmetry.
Loss = site weight (lognormal, sigma 1) x 4^-bits x (1 + group / 1024) x noise (lognormal, sigma 0.2).
Loss of a dropped block = 0.2 x weight x noise.
Budgets are spaced evenly from the smallest plan to the largest. One process, one thread; median and maximum."""


def inventory(blocks: int, hidden: int, inner: int, kv: int) -> Inventory:
    """A synthetic Llama with the ties of vLLM's fused layers."""
    shapes = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
    shapes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    leaves, parents = [], []
    for block in range(blocks):
        for tied in (("q", "k", "v"), ("o",), ("gate", "up"), ("down",)):
            members = tuple(
                Member(module=f"layers.{block}.{name}", shape=shapes[name], dtype="bfloat16") for name in tied
            )
            leaves.append(Site(name=f"layers.{block}.{'_'.join(tied)}", kind="linear", block=block, members=members))
        covers = tuple(leaf.name for leaf in leaves[-4:])
        norm = {f"layers.{block}.norm": TensorSpec("bfloat16", (2 * hidden,))}
        parents.append(Site(name=f"layers.{block}", kind="block", block=block, members=(), covers=covers, rest=norm))
    rest = {name: TensorSpec("bfloat16", (128256, hidden)) for name in ("embedding", "head")}
    return Inventory(architecture="Llama", sites=(*leaves, *parents), rest=rest)


def losses(space: Space, generator: np.random.Generator) -> Losses:
    """Random sensitivities of plausible size; a drop costs about as much as its leaves at 2 bits."""
    found = {}
    for site in space.inventory.sites:
        weight = float(np.exp(generator.normal(0, 1)))
        for choice in space.options[site.name]:
            knobs = choice.knobs
            error = 4.0 ** -knobs["bits"] * (1 + knobs["group_size"] / 1024) if site.is_leaf else 0.2
            found[site.name, choice] = weight * error * float(np.exp(generator.normal(0, 0.2)))
    return found


def measured(space: Space, points: int) -> str:
    """Solver times on a space, as text [s]."""
    started = time.perf_counter()
    solver = Solver(space)
    made, found = time.perf_counter() - started, losses(space, np.random.default_rng(0))
    smallest = solver.smallest().size_bytes(space.inventory)
    most = solver.fixed + sum(max(space.sizes(site)) for site in space.inventory.leaves)
    seconds = []
    for budget in np.linspace(smallest, most, points).astype(int).tolist():
        started = time.perf_counter()
        plan = solver.solve(found, budget)
        seconds.append(time.perf_counter() - started)
        assert plan.size_bytes(space.inventory) <= budget
    each = f"one budget {np.median(seconds):.3f} s, at most {max(seconds):.3f}"
    return f"built in {made:.2f} s; {each}; all {points} budgets {sum(seconds):.2f} s"


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(PROTOCOL)
    for blocks, groups, symmetries in ((75, (64, 128), (True,)), (80, (16, 32, 64, 128, 256), (True, False))):
        choices = [
            f"quantize bits={b} group_size={g} symmetric={s}"
            for b, g, s in product((2, 3, 4, 5, 6, 8), groups, symmetries)
        ]
        for drops in (0, blocks // 4):
            wishes = SpaceFile.model_validate(
                {"choices": {"linear": choices, "block": ["drop"] if drops else []}, "max_drops": drops}
            )
            space = Space.build(inventory(blocks, 8192, 28672, 1024), targets["paredown"], wishes)
            print(
                f"{4 * blocks} sites x {len(choices)} choices, at most {drops} drops: {measured(space, points)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
