"""Small questions for the search: toy spaces, losses that are known, trials that were never measured, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from paredown.evaluators.quality import Quality
from paredown.search.samplers import Problem
from paredown.search.solver.solver import Solver
from paredown.search.trial import Trial
from paredown.space.choice import KEEP, Choice
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes
from shared import strategies

Losses = Mapping[tuple[str, Choice], float]

CHOICES: dict[str, list[str]] = {
    "linear": ["quantize bits=2", "quantize bits=4", "keep"],
    "embedding": ["quantize bits=8", "keep"],
    "ffn": ["prune-neurons sparsity=0.5", "prune-neurons sparsity=0.5 then quantize bits=4"],
    "block": ["drop"],
}


def toy_space(*, max_drops: int = 1, blocks: int = 2, choices: Mapping[str, list[str]] | None = None) -> Space:
    """A space small enough to list every plan: drops, feed-forward networks that overrule their leaves, norms."""
    wishes = SpaceFile.model_validate({"choices": {**CHOICES, **(choices or {})}, "max_drops": max_drops})
    return Space.build(strategies.toy_inventory(blocks), targets["paredown"], wishes)


def all_plans(space: Space) -> list[Plan]:
    """Every plan of a space, listed block by block, without the solver's help."""
    inventory, options = space.inventory, space.options
    partial: list[dict[str, Choice]] = [{}]
    for leaf in (leaf for leaf in inventory.leaves if leaf.block is None):
        partial = [{**choices, leaf.name: choice} for choices in partial for choice in options[leaf.name]]
    for block in (site for site in inventory.parents if site.kind == "block"):
        network = next(site for site in inventory.parents if site.kind == "ffn" and site.block == block.block)
        inside: list[dict[str, Choice]] = [{}]
        for leaf in (leaf for leaf in block.covers if leaf not in network.covers):
            inside = [{**choices, leaf: choice} for choices in inside for choice in options[leaf]]
        whole: list[dict[str, Choice]] = [{}]
        for leaf in network.covers:
            whole = [{**choices, leaf: choice} for choices in whole for choice in options[leaf]]
        whole += [{network.name: choice} for choice in options[network.name]]
        inside = [a | b for a in inside for b in whole] + [{block.name: choice} for choice in options[block.name]]
        partial = [a | b for a in partial for b in inside]
    plans = [Plan.of(inventory, choices) for choices in partial]
    return [plan for plan in plans if sum(str(choice) == "drop" for _, choice in plan.entries) <= space.max_drops]


def losses_of(space: Space, seed: int = 0) -> dict[tuple[str, Choice], float]:
    """What a sensitivity could look like: nothing for a kept site, more for fewer bytes, sites unequal."""
    generator = np.random.default_rng(seed)
    losses = {}
    for site in space.inventory.sites:
        whole = total_bytes(site.rest) + sum(2 * member.parameters for member in site.members)
        weight = float(np.exp(generator.normal(0, 1)))
        for choice, size in zip(space.options[site.name], space.sizes(site), strict=True):
            losses[site.name, choice] = 0.0 if choice == KEEP else weight * float(np.exp(-5 * size / (whole or 1)))
    return losses


def problem_of(space: Space, *, share: float = 0.4, seed: int = 0) -> Problem:
    """A problem with made-up sensitivities and a budget of so great a share of the original."""
    budget = int(space.inventory.original_bytes * share)
    return Problem(space=space, solver=Solver(space), losses=losses_of(space, seed), budget_bytes=budget, seed=seed)


def sum_of(space: Space, plan: Plan, losses: Losses) -> float:
    """The loss of a plan were losses additive."""
    return sum(losses[site.name, choice] for site, choice in plan.decided(space.inventory))


def trial_of(space: Space, plan: Plan, loss: float, number: int = 0) -> Trial:
    """A trial that was never run."""
    size = plan.size_bytes(space.inventory)
    return Trial(
        number=number,
        origin="toy",
        label="",
        plan=plan,
        size_bytes=size,
        loss=loss,
        standard_error=0.0,
        perplexity=None,
    )


def quality_of(loss: float, documents: int = 40, plan: int | None = None) -> Quality:
    """A measurement without a model; documents of one length.

    Args:
        loss: The mean over documents, exactly.
        documents: How many.
        plan: Seeds the spread over documents: some are hard for every plan, and each plan has its own scatter
            beside that, so that only a paired comparison tells two plans apart. None gives every document the same
            loss.
    """
    tokens, spread = np.full(documents, 10.0), np.ones(documents)
    if plan is not None:
        spread = np.random.default_rng(0).lognormal(0, 0.5, documents) * np.random.default_rng([1, plan]).lognormal(
            0, 0.1, documents
        )
    return Quality(metric="kl", totals=loss * tokens * spread / spread.mean(), tokens=tokens, perplexity=2.0)


def passages(count: int, seed: int = 0, length: int = 150) -> list[str]:
    """Texts of ASCII letters, no two alike."""
    generator = np.random.default_rng(seed)
    return ["".join(map(chr, generator.integers(33, 127, length))) for _ in range(count)]


def write_text(path: Path, texts: Sequence[str] | None = None) -> Path:
    """A text file of documents."""
    path.write_text("<|endoftext|>".join(texts or passages(60)))
    return path
