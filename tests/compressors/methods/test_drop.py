"""Blocks, attentions and feed-forward networks that are left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from paredown.compressors.model.assemble import assemble
from paredown.compressors.model.dropped_parts import check_places
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy import verify_process
from paredown.deploy.apply import encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.search.workbench.survey import survey
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile, StudyFile
from paredown.space.targets.target import targets
from shared import pico as families
from shared import structured

Folder = Callable[[str], Path]


def dropping(inventory: Inventory, *which: tuple[str, int]) -> Plan:
    return Plan.of(
        inventory, {site.name: parse_choice("drop") for site in inventory.parents if (site.kind, site.block) in which}
    )


@torch.no_grad()
def without(folder: Path, *which: tuple[str, int]) -> Tensor:
    """What the original computes when hooks take away what an attention or a network gives."""
    model = structured.load_original(folder)
    inventory = structured.inventory_of(folder)
    for site in inventory.parents:
        if (site.kind, site.block) in which:
            model.get_submodule(site.members[-1].module).register_forward_hook(
                lambda module, inputs, output: torch.zeros_like(output)
            )
    return TorchModel(model, causal=inventory.causal).outputs(structured.TOKENS)


@pytest.mark.parametrize(
    "which",
    [[("attention", 0)], [("ffn", 0)], [("attention", 1), ("ffn", 1)], [("attention", 0), ("ffn", 0), ("ffn", 1)]],
    ids=str,
)
@pytest.mark.parametrize("name", families.PICO_NAMES)
@torch.no_grad()
def test_what_is_left_out_adds_nothing(pico: Folder, tmp_path: Path, name: str, which: list[tuple[str, int]]) -> None:
    """Scored, deployed and decoded with a cache: the original without what those layers give."""
    folder = pico(name)
    inventory, bank = structured.inventory_of(folder), structured.bank_of(folder, tmp_path)
    plan = dropping(inventory, *which)
    plan.check(inventory, targets["paredown"])
    expected = without(folder, *which)
    assert structured.relative(structured.states(folder, plan, bank), expected) < 1e-5
    tensors = encoded(inventory, plan, bank.parameters)
    gone = {
        member.module
        for site, _ in plan.decided(inventory)
        if str(plan[site.name]) == "drop"
        for member in site.members
    }
    assert not any(key.rpartition(".")[0] in gone for key in tensors)
    model = assemble(config_of(folder), inventory, plan, tensors)
    assert structured.relative(TorchModel(model, causal=inventory.causal).outputs(structured.TOKENS), expected) < 1e-5
    if inventory.causal:
        assert (
            structured.relative(verify_process.incremental(TorchModel(model, causal=True), structured.TOKENS), expected)
            < 1e-5
        )
        found = model.generate(structured.TOKENS[:1, :4], max_new_tokens=3, do_sample=False)
        assert found[0, 4] == expected[0, 3].argmax()


def three_layers(folder: Path, **options: object) -> Path:
    """A model of three blocks, so that a block and an attention may go together."""
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        **options,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_a_block_and_an_attention_may_go_together(tmp_path: Path) -> None:
    """The one attention that is left has the first place of the cache, whichever blocks went."""
    folder = three_layers(tmp_path / "model")
    inventory, bank = structured.inventory_of(folder), structured.bank_of(folder, tmp_path)
    for block, attention in ((0, 1), (1, 0), (2, 0)):
        plan = dropping(inventory, ("block", block), ("attention", attention))
        model = assemble(config_of(folder), inventory, plan, encoded(inventory, plan, bank.parameters))
        scored = structured.states(folder, plan, bank)
        assert structured.relative(TorchModel(model, causal=True).outputs(structured.TOKENS), scored) < 1e-5
        assert (
            structured.relative(verify_process.incremental(TorchModel(model, causal=True), structured.TOKENS), scored)
            < 1e-5
        )


def test_an_attention_at_least_stays(inventory: Callable[[str], Inventory], pico: Folder) -> None:
    found = inventory("llama")
    for which in ([("attention", 0), ("attention", 1)], [("block", 0), ("attention", 1)]):
        plan = dropping(found, *which)
        with pytest.raises(PlanError, match="every attention is dropped; keep at least one"):
            plan.check(found, targets["paredown"])
        with pytest.raises(PlanError, match="every attention is dropped; keep at least one"):
            check_places(config_of(pico("llama")), found, plan)
    dropping(found, ("ffn", 0), ("ffn", 1), ("attention", 0)).check(found, targets["paredown"])


def test_attentions_of_several_types_keep_their_places(tmp_path: Path) -> None:
    """A sliding window has a cache of its own kind: refused, and not offered; networks may go all the same."""
    types = ["full_attention", "sliding_attention", "full_attention"]
    folder = three_layers(tmp_path / "model", layer_types=types, use_sliding_window=True, sliding_window=8)
    families.tokenizer().save_pretrained(folder)
    inventory = inventory_of(folder)
    with pytest.raises(PlanError, match="several types.*drop whole blocks or feed-forward networks"):
        check_places(config_of(folder), inventory, dropping(inventory, ("attention", 1)))
    _, space = survey(StudyFile(model=str(folder)))
    drop = parse_choice("drop")
    assert {site.kind for site in inventory.parents if drop in space.options[site.name]} == {"block", "ffn"}
    assert all(space.options[site.name] for site in inventory.parents if site.kind == "attention")


def test_other_runtimes_run_whole_blocks(inventory: Callable[[str], Inventory]) -> None:
    for site in inventory("llama").parents:
        fault = site_fault(site, parse_choice("drop"), targets["transformers"])
        assert fault is None if site.kind == "block" else "drop the whole block or use target paredown" in str(fault)


def test_all_drops_count_together(inventory: Callable[[str], Inventory]) -> None:
    """Against ``max_drops``: a block, an attention and a network each count one."""
    found = inventory("llama")
    kept = {"linear": ["keep"], "embedding": ["keep"], "ffn": ["drop"], "attention": ["drop"], "block": ["drop"]}
    space = Space.build(found, targets["paredown"], SpaceFile.model_validate({"choices": kept, "max_drops": 1}))
    halves = [("attention", 0), ("ffn", 0), ("ffn", 1)]
    for which in [("block", 0), *halves]:
        assert space.allows(dropping(found, which))
    for which in halves[1:]:
        assert not space.allows(dropping(found, halves[0], which))
    assert not space.allows(dropping(found, ("block", 0), ("ffn", 1)))
    assert space.allows(dropping(found, ("block", 0), ("ffn", 0)))
