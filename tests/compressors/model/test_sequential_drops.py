"""Plans compressed in order that leave out blocks, attentions or feed-forward networks."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import paredown
from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.collect import collect
from paredown.compressors.model.dropped_parts import renumbering
from paredown.compressors.model.original_inputs import original_inputs
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.model.sequential import in_order, ordered_bank
from paredown.compressors.original.checkpoint import config_of, config_sha256, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.lazy_weights import open_original
from paredown.deploy.apply import encoded
from paredown.deploy.engines.transformers import TorchModel
from paredown.deploy.verify import scored_model
from paredown.space.choice import Choice, parse_choice
from paredown.space.errors import PlanError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, Calibration, PlanFile, choices_of
from paredown.space.site import Inventory
from paredown.space.targets.target import targets
from shared import pico as families
from shared import toys

Folder = Callable[[str], Path]
TOKENS = torch.randint(2, 128, (8, 40), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(40) < torch.tensor([40, 20, 40, 33] * 2)[:, None]).long()
GPTQ = parse_choice("quantize bits=3 group_size=16 algorithm=gptq")
DROP = parse_choice("drop")
WHICH = (("block", 0), ("block", 1), ("block", 2), ("attention", 0), ("ffn", 1))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A pico model of three blocks by family: a first, an inner and a last one."""
    root = tmp_path_factory.mktemp("three")

    @cache
    def folder(name: str) -> Path:
        model_class, config = families.FAMILIES[name]
        config = deepcopy(config)
        config.num_hidden_layers = 3
        torch.manual_seed(0)
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        model.tie_weights()
        model.save_pretrained(root / name)
        families.tokenizer().save_pretrained(root / name)
        return root / name

    return folder


def prepared(folder: Path, bank: Path, target: str, memory: int = 1 << 40) -> PlannedModel:
    model, parameters = open_original(folder, config_of(folder), memory)
    inventory = inventory_of(folder, ties=targets[target].ties)
    planned = PlannedModel(
        model, inventory, Bank(bank, parameters, None, "test", cache_bytes=0 if memory == 1 else 1 << 20)
    )
    planned.bank.statistics = collect(model, inventory, TOKENS * MASK, MASK, bank / "statistics")
    return planned


def plan_without(inventory: Inventory, *which: tuple[str, int], choice: Choice = GPTQ) -> Plan:
    """Every linear site under a calibrated choice, and these left out."""
    everywhere = {site.name: choice for site in inventory.leaves if site.kind == "linear"}
    return Plan.of(
        inventory, everywhere | {site.name: DROP for site in inventory.parents if (site.kind, site.block) in which}
    )


def only_in(inventory: Inventory, block: int, plan: Plan) -> Plan:
    """What a plan does in one block, and its drops."""
    here = {name: choice for name, choice in plan.entries if choice == DROP or inventory[name].block == block}
    return Plan.of(inventory, here)


def ordered(planned: PlannedModel, plan: Plan, work: Path) -> Bank:
    work.mkdir(exist_ok=True)
    inputs = original_inputs(planned, TOKENS * MASK, MASK, work)
    return in_order(planned, plan, planned.bank, TOKENS * MASK, MASK, inputs)


@torch.no_grad()
def states(planned: PlannedModel) -> Tensor:
    return TorchModel(planned.model, causal=planned.inventory.causal).outputs(TOKENS)


@torch.no_grad()
def fresh(folder: Path, plan: Plan, bank: Bank, inventory: Inventory) -> Tensor:
    """Logits of the original, loaded again, with the records of a bank written into it."""
    model = load_original(folder)
    tensors = encoded(inventory, plan, dict(parameters_of(model)), bank.tensors)
    return TorchModel(scored_model(model, inventory, plan, tensors), causal=inventory.causal).outputs(TOKENS)


def records(plan: Plan, bank: Bank, inventory: Inventory) -> dict[str, bytes]:
    calibrated = [(site, choice) for site, choice in plan.decided(inventory) if choice.needs]
    return {site.name: bank.path(site, choice).read_bytes() for site, choice in calibrated}


def remove_records(planned: PlannedModel, plan: Plan) -> None:
    bank = ordered_bank(planned.bank, plan)
    for site, choice in plan.decided(planned.inventory):
        if choice.needs:
            bank.path(site, choice).unlink(missing_ok=True)


@pytest.mark.parametrize("target", ["paredown", "transformers"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_no_plan_in_order_leaves_a_trace_in_the_next(three: Folder, tmp_path: Path, name: str, target: str) -> None:
    """In either order, each plan computes what a fresh model with its records does, as do plans in between."""
    planned = prepared(three(name), tmp_path / "bank", target)
    inventory = planned.inventory
    plans = [plan_without(inventory, which) for which in WHICH[:2] + WHICH[3:] * (target == "paredown")]
    plans.append(
        only_in(inventory, 1, plans[0])
    )  # by its name it would be taken for the block that moves into its place
    whole = plan_without(inventory)
    planned.swap(whole)
    untouched = states(planned)
    for order in (plans, [plans[-1], plans[1]]):
        for plan in order:
            remove_records(planned, plan)
            bank = ordered(planned, plan, tmp_path / "work")
            expected = fresh(three(name), plan, bank, inventory)
            planned.swap(plan, bank)
            assert torch.equal(states(planned), expected)
            planned.swap(whole)
            assert torch.equal(states(planned), untouched)
            planned.swap(plan, bank)
            assert torch.equal(states(planned), expected)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_half_of_the_records_is_enough_to_go_on_with(
    three: Folder, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill in the middle, the others are made, byte for byte as in an uninterrupted pass.

    What is dropped has none.
    """
    planned = prepared(three(name), tmp_path / "bank", "paredown")
    inventory, store = planned.inventory, Bank.store
    made: list[str] = []
    monkeypatch.setattr(Bank, "store", lambda self, site, *rest: made.append(site.name) or store(self, site, *rest))
    for which in WHICH:
        plan = plan_without(inventory, which)
        bank = ordered(planned, plan, tmp_path / "work")
        through = records(plan, bank, inventory)
        gone = next(site for site in inventory.parents if (site.kind, site.block) == which)
        assert len(through) == sum(site.kind == "linear" and site.name not in gone.covers for site in inventory.leaves)
        removed = [pair for pair in plan.decided(inventory) if pair[1].needs][len(through) // 2 :]
        for site, choice in removed:
            bank.path(site, choice).unlink()
        made.clear()
        again = ordered(planned, plan, tmp_path / "work")
        assert sorted(made) == sorted(site.name for site, _ in removed)
        assert records(plan, again, inventory) == through
        planned.swap(plan, again)
        assert torch.equal(states(planned), fresh(three(name), plan, again, inventory))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_streamed_model_drops_alike(three: Folder, tmp_path: Path, name: str) -> None:
    found = []
    for memory in (1 << 40, 1):
        planned = prepared(three(name), tmp_path / str(memory), "paredown", memory)
        assert bool(planned.stream) == (memory == 1)
        plan = plan_without(planned.inventory, ("block", 1))
        found.append(records(plan, ordered(planned, plan, tmp_path / "work"), planned.inventory))
    assert found[0] == found[1]


def test_a_module_keeps_its_name_under_every_plan(three: Folder, tmp_path: Path) -> None:
    """Also where the model itself counts its blocks afresh; who renames a module of a dropped block is told."""
    planned = prepared(three("llama"), tmp_path / "bank", "paredown")
    modules = [planned.modules[f"model.layers.{block}.mlp.down_proj"] for block in range(3)]
    assert modules == [planned.model.get_submodule(f"model.layers.{block}.mlp.down_proj") for block in range(3)]
    planned.swap(plan_without(planned.inventory, ("block", 0)))
    assert modules == [planned.modules[f"model.layers.{block}.mlp.down_proj"] for block in range(3)]
    assert planned.model.get_submodule("model.layers.0.mlp.down_proj") is modules[1]
    rename = renumbering(planned.inventory, (0,))
    assert rename("model.layers.2.mlp.down_proj") == "model.layers.1.mlp.down_proj"
    with pytest.raises(PlanError, match=r"model.layers.0.mlp.down_proj lies in a block that the plan drops"):
        rename("model.layers.0.mlp.down_proj")


@pytest.mark.parametrize(
    ("name", "target"), [("llama", "transformers"), ("bert", "transformers"), ("gpt2", "paredown")]
)
def test_apply_in_order_verifies_without_an_inner_block(three: Folder, tmp_path: Path, name: str, target: str) -> None:
    """The fresh process gives the logits of the scored model."""
    folder = three(name)
    inventory = inventory_of(folder, ties=targets[target].ties)
    plan = plan_without(inventory, ("block", 1))
    base = BaseModelReference(
        name=str(folder),
        architecture=inventory.architecture,
        config_sha256=config_sha256(folder),
        shapes_sha256=inventory.shapes_sha256(),
    )
    texts = toys.write_text(tmp_path / "text.txt", toys.passages(60))
    calibration = Calibration(data=[str(texts)], tokens=1024, sequence_length=32, seed=0, sha256="0", in_order=True)
    file = PlanFile(
        base_model=base,
        target=target,
        choices=choices_of(plan),
        size_bytes=plan.size_bytes(inventory),
        calibration=calibration,
    )
    _, verified = paredown.apply(file, folder, tmp_path / "out", bank=tmp_path / "bank")
    assert verified is not None
    assert verified.difference < 1e-4
