"""Scales that follow the activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.encoding import decode_site, encode_site
from paredown.compressors.methods.awq import folded, power
from paredown.space.choice import parse_choice
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.statistics import Statistics
from paredown.space.structure_choice import Structure
from paredown.space.targets.target import targets
from paredown.space.tensors import TensorSpec
from shared import structured

Folder = Callable[[str], Path]
PRE_NORM = ("llama", "qwen2", "mistral", "gpt2", "opt")
FOLDED_INSIDE = ("llama", "qwen2", "mistral", "opt")


@pytest.mark.parametrize("alpha", [0.3, 1])
@pytest.mark.parametrize("name", PRE_NORM)
def test_scaling_alone_changes_nothing(pico: Folder, tmp_path: Path, name: str, alpha: float) -> None:
    """All matrices and norms are other numbers, and the model computes the same up to the rounding of float32."""
    folder = pico(name)
    bank = structured.bank_of(folder, tmp_path)
    choice = f"awq alpha={alpha}"
    plan = structured.everywhere(folder, {"attention": choice, "ffn": choice})
    original = structured.states(folder, Plan(), bank)
    assert structured.relative(structured.states(folder, plan, bank), original) < 1e-5
    for site, found in plan.decided(structured.inventory_of(folder)):
        if not site.structured:
            continue
        decoded = decode_site(site, found, bank.tensors(site, found))
        readers = [member.module for member in site.members[: None if name in FOLDED_INSIDE else -1]]
        changed = [f"{module}.weight" for module in readers] + list(site.norm)
        assert all(structured.relative(decoded[key], bank.parameters[key]) > 0.01 for key in changed)
        last = f"{site.members[-1].module}.weight"
        assert torch.equal(decoded[last], bank.parameters[last]) == (name not in FOLDED_INSIDE)


def output_error(site: Site, choice: str, bank: structured.Bank, inputs: torch.Tensor) -> float:
    """Error of the first matrices' outputs, on inputs before the norm's weight is applied."""
    made = parse_choice(choice)
    name = next(iter(site.norm))
    norm = bank.parameters[name]
    decoded = decode_site(site, made, encode_site(site, made, bank.parameters, bank.statistics))
    total = 0.0
    for member in site.members[:-2]:  # the last maker's rows may have another scale
        key = f"{member.module}.weight"
        total += float(
            ((inputs * decoded[name]) @ decoded[key].T - (inputs * norm) @ bank.parameters[key].T).square().sum()
        )
    return total


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_channels_of_large_inputs_lose_less(pico: Folder, tmp_path: Path, kind: str) -> None:
    """With a few inputs a hundred times the others, 3 bits lose less than half of what they lose without scales."""
    bank = structured.bank_of(pico("llama"), tmp_path)
    site = next(site for site in structured.inventory_of(pico("llama")).parents if site.kind == kind)
    norm = bank.parameters[next(iter(site.norm))]
    inputs = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    inputs[:, [3, 17]] *= 100
    seen = inputs * norm
    known = Statistics(second_moment=seen.T @ seen / 256, mean_absolute=seen.abs().mean(0))
    bank.statistics = {**bank.statistics, **{member.module: known for member in site.members[:-1]}}
    then = "quantize bits=3 group_size=32 algorithm=round-to-nearest"
    plain = output_error(site, f"awq alpha=0 then {then}", bank, inputs)
    assert output_error(site, f"awq then {then}", bank, inputs) < 0.5 * plain
    fixed = [output_error(site, f"awq alpha={alpha / 10} then {then}", bank, inputs) for alpha in range(10)]
    assert min(fixed) < 0.5 * plain


def test_a_calibrated_step_gets_the_statistics_of_what_it_rounds(pico: Folder, tmp_path: Path) -> None:
    """Scaled columns read scaled inputs: the second moment passed on belongs to the inputs over the scales."""
    folder = pico("llama")
    bank = structured.bank_of(folder, tmp_path)
    for site in structured.inventory_of(folder).parents[:2]:
        choice = parse_choice("awq alpha=0.7 then quantize bits=4 algorithm=gptq")
        known = [bank.statistics[member.module] for member in site.members]
        matrices = structured.matrices_of(site, bank)
        rest = {name: bank.parameters[name] for name in site.norm}
        changed = choice.restructure(
            site, Structure(matrices=matrices, biases=[None] * len(matrices), statistics=known, rest=rest)
        )
        for before, after, old, new in zip(matrices, changed.matrices, known, changed.statistics, strict=True):
            energy = ((before @ old["second_moment"]) * before).sum(1)
            rows = (after @ new["second_moment"] * after).sum(1)
            scale = rows / energy  # rows of the last maker are scaled, those of the others are not
            assert torch.allclose(scale, torch.ones_like(scale), rtol=1e-3) == (before is not matrices[-2])
            torch.testing.assert_close(
                new["mean_absolute"].log(), (old["mean_absolute"] * (before / after)[0] * scale[0].sqrt()).log()
            )


@pytest.mark.parametrize(
    ("dtype", "bias"), [("bfloat16", False), ("bfloat16", True), ("float16", True), ("float32", True)]
)
def test_a_norm_is_folded_exactly_in_its_own_type(dtype: str, bias: bool) -> None:
    """What is stored times the effective scale is the norm as it was, zero and tiny weights too; the type holds it."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    weight = torch.randn(64, generator=generator)
    weight[:3] = torch.tensor([0.0, 6e-8, -1.0])
    weight = weight.to(kind).float()
    rest = {"n.weight": weight} | ({"n.bias": torch.randn(64, generator=generator).to(kind).float()} if bias else {})
    site = Site(name="s", kind="ffn", block=0, members=(), norm={name: TensorSpec(dtype, (64,)) for name in rest})
    scale, new = folded(site, rest, torch.randn(64, generator=generator).exp() * 10)
    assert (scale > 0).all() and float((scale != 1).float().mean()) > 0.9
    for name, old in rest.items():
        assert torch.equal(new[name].to(kind).float(), new[name])
        torch.testing.assert_close(new[name] * scale, old, rtol=1e-6, atol=0)


def test_scales_have_one_in_their_middle_and_no_zero() -> None:
    """Channels that are never on get a scale too."""
    scale = power(torch.tensor([0.0, 1.0, 100.0]), 0.5)
    assert torch.isfinite(scale).all() and (scale > 0).all()
    assert float(scale.max() * scale.min()) == pytest.approx(1)
    assert torch.equal(power(torch.tensor([3.0, 5.0]), 0.0), torch.ones(2))


def test_without_a_norm_of_its_own_a_site_is_refused(inventory: Callable[[str], Inventory]) -> None:
    """BERT's norms go to the sum as well; every target runs it where what follows runs."""
    for site in (site for site in inventory("bert").parents if site.structured):
        assert "no norm is known that only its matrices read" in str(
            site_fault(site, parse_choice("awq"), targets["paredown"])
        )
    for name, kind in (("llama", "Linear"), ("gpt2", "Conv1D")):
        site = next(site for site in inventory(name).parents if site.structured)
        fault = site_fault(site, parse_choice("awq then quantize bits=4"), targets["transformers"])
        assert (fault is None) == (kind == "Linear")
