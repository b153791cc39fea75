"""Attentions with fewer heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.methods.prune_heads import PruneHeads
from paredown.compressors.numerics.group_removal import output_energy
from paredown.space.choice import parse_choice
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member, Site
from paredown.space.targets.target import targets
from shared import structured

Folder = Callable[[str], Path]
SIZE = 8
"""Width of a head of the pico models, which have 4 query heads."""


def head_energies(reader: torch.Tensor, inputs: torch.Tensor, groups: int) -> list[float]:
    """Mean square of what each group of heads adds to the output, token by token."""
    width = reader.shape[1] // groups
    parts = [slice(g * width, (g + 1) * width) for g in range(groups)]
    return [float((inputs[:, part] @ reader[:, part].T).square().sum(1).mean()) for part in parts]


@pytest.mark.parametrize("algorithm", ["magnitude", "activation"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "bert"])
def test_a_pruned_group_is_a_silent_one(pico: Folder, tmp_path: Path, name: str, algorithm: str) -> None:
    """The model computes what the original does when nothing reads the heads that went; biases of what stays stay."""
    folder, choice = pico(name), parse_choice(f"prune-heads sparsity=0.5 algorithm={algorithm}")
    assert isinstance(choice, PruneHeads)
    bank, plan = structured.bank_of(folder, tmp_path), structured.everywhere(folder, {"attention": str(choice)})
    inventory = structured.inventory_of(folder)
    silent = {}
    for site in (site for site in inventory.parents if site.kind == "attention"):
        assert site.heads is not None
        matrices, groups = structured.matrices_of(site, bank), site.heads[1]
        stay = choice.groups(matrices, bank.statistics[site.members[-1].module], groups).tolist()
        assert len(stay) == groups // 2
        reader = matrices[-1].clone()
        width = SIZE * 4 // groups
        for group in set(range(groups)) - set(stay):
            reader[:, group * width : (group + 1) * width] = 0
        silent[f"{site.members[-1].module}.weight"] = reader
    expected = structured.altered(folder, silent)
    assert structured.relative(structured.states(folder, plan, bank), expected) < 1e-5
    assert structured.relative(structured.states(folder, Plan(), bank), expected) > 0.01


def test_a_groups_importance_is_what_it_adds_to_the_output() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, reader = torch.randn(50, 24, generator=generator), torch.randn(7, 24, generator=generator)
    moment = inputs.T @ inputs / len(inputs)
    for groups in (1, 3, 24):
        torch.testing.assert_close(
            output_energy(reader, moment, 24 // groups), torch.tensor(head_energies(reader, inputs, groups))
        )


def attention(heads: tuple[int, int] | None) -> Site:
    shapes = {"q": (64, 32), "k": (32, 32), "v": (32, 32), "o": (32, 64)}
    members = tuple(Member(module=name, shape=shape, dtype="bfloat16") for name, shape in shapes.items())
    return Site(name="attention", kind="attention", block=0, members=members, heads=heads)


def test_queries_go_with_the_keys_and_values_that_they_look_at() -> None:
    """A quarter of 8 query heads and 4 key-value heads: 2 and 1."""
    choice, site = parse_choice("prune-heads sparsity=0.25"), attention((8, 4))
    assert list(choice.shapes(site)) == [(48, 32), (24, 32), (24, 32), (32, 48)]
    assert list(parse_choice("prune-heads sparsity=0.99").shapes(site)) == [(16, 32), (8, 32), (8, 32), (32, 16)]


def test_what_cannot_go_is_refused(inventory: Callable[[str], Inventory]) -> None:
    """Fused heads, code that counts its heads, and less than one group."""
    target = targets["paredown"]
    assert "removes none of 4" in str(site_fault(attention((8, 4)), parse_choice("prune-heads sparsity=0.1"), target))
    for name in ("gpt2", "opt"):
        site = next(site for site in inventory(name).parents if site.kind == "attention")
        assert "has a fixed number of heads" in str(site_fault(site, parse_choice("prune-heads sparsity=0.5"), target))
    llama = next(site for site in inventory("llama").parents if site.kind == "attention")
    assert "target paredown only" in str(
        site_fault(llama, parse_choice("prune-heads sparsity=0.5"), targets["transformers"])
    )
