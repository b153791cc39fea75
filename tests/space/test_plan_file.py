"""plan.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given

from paredown.compressors.original.find_sites import inventory_of
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile, choices_of
from paredown.space.site import Inventory
from paredown.space.targets.target import targets
from shared import strategies

TOY = strategies.toy_inventory()
CONFIG = "0" * 64


def file_of(plan: Plan, inventory: Inventory, target: str = "paredown") -> PlanFile:
    return PlanFile(
        base_model=BaseModelReference(
            name="toy",
            architecture=inventory.architecture,
            config_sha256=CONFIG,
            shapes_sha256=inventory.shapes_sha256(),
        ),
        target=target,
        choices=choices_of(plan),
        size_bytes=plan.size_bytes(inventory),
        quality={"metric": "kl", "mean": 0.0121, "ci95": [0.0117, 0.0125]},
    )


EXAMPLE = Plan.of(
    TOY,
    {
        "embed": parse_choice("quantize bits=8 group_size=16"),
        "layers.0.attention": parse_choice("lowrank rank=8 then quantize bits=8"),
        "layers.0.{up,down}": parse_choice(
            "prune-neurons sparsity=0.5 then quantize bits=4 group_size=32 symmetric=false"
        ),
        "layers.1": parse_choice("drop"),
    },
)
GOLDEN = """\
schema_version: 1
base_model: {name: toy, architecture: Toy, config_sha256: CONFIG, shapes_sha256: SHAPES, revision: null}
target: paredown
default: {method: keep}
choices:
  embed: {method: quantize, bits: 8, group_size: 16}
  layers.0.attention:
    method: lowrank
    rank: 8
    then: {method: quantize, bits: 8}
  layers.0.{up,down}:
    method: prune-neurons
    sparsity: 0.5
    then: {method: quantize, bits: 4, group_size: 32, symmetric: false}
  layers.1: {method: drop}
size_bytes: SIZE
quality:
  metric: kl
  mean: 0.0121
  ci95: [0.0117, 0.0125]
provenance: {}
"""


@given(strategies.plans(TOY))
def test_a_file_brings_back_the_plan(plan: Plan) -> None:
    """Through text and back: same value, same choices, same bytes; and a second time the same text."""
    file = file_of(plan, TOY)
    again = PlanFile.model_validate(yaml.safe_load(file.to_yaml()))
    assert again == file
    assert again.to_yaml() == file.to_yaml()
    assert again.plan_for(TOY) == plan
    assert Plan.of(TOY, again.parsed()).size_bytes(TOY) == file.size_bytes


def test_the_text_is_stable(tmp_path: Path) -> None:
    """People read it and diff it: a change of the form is a change of the format."""
    path = tmp_path / "plan.yaml"
    file_of(EXAMPLE, TOY).write(path)
    golden = GOLDEN.replace("CONFIG", f"'{CONFIG}'").replace("SHAPES", TOY.shapes_sha256())
    golden = golden.replace("SIZE", str(EXAMPLE.size_bytes(TOY)))
    assert (
        path.read_text().partition("target:")[2] == golden.partition("target:")[2]
    )  # the long line before it is wrapped
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(golden)
    assert PlanFile.read(path).plan_for(TOY) == EXAMPLE


def test_every_fault_of_a_file_has_its_line(tmp_path: Path) -> None:
    """Unknown methods, knobs and keys, a target that nobody registered, a size below zero."""
    path = tmp_path / "plan.yaml"
    path.write_text(
        "schema_version: 1\n"
        "base_model: {name: toy, architecture: Toy, config_sha256: '', shapes_sha256: ''}\n"
        "target: paredwon\n"
        "choices:\n"
        "  a: {method: quantise, bits: 4}\n"
        "  b: {method: quantize, bit: 4}\n"
        "  c: {method: drop}\n"
        "  d: drop\n"
        "size_bytes: -1\n"
        "sise: 3\n"
    )
    with pytest.raises(PlanError, match="plan.yaml") as caught:
        PlanFile.read(path)
    lines = {int(line.removeprefix(f"{path}:").split(":")[0]): line for line in str(caught.value).split("\n")}
    assert sorted(lines) == [3, 5, 6, 8, 9, 10]
    assert "unknown target 'paredwon'; did you mean 'paredown'" in lines[3]
    assert "unknown method 'quantise'; did you mean 'quantize'" in lines[5]
    assert "bits: Field required; bit: Extra inputs are not permitted" in lines[6]
    assert "unknown key" in lines[10]


def test_an_endless_choice_is_refused(tmp_path: Path) -> None:
    """A chain of a thousand steps is refused without a traceback."""
    path = tmp_path / "plan.yaml"
    file_of(EXAMPLE, TOY).write(path)
    chain = " then ".join(["lowrank rank=1"] * 5000)
    path.write_text(path.read_text().replace("{method: drop}", f"{{method: lowrank, rank: 1, then: '{chain}'}}"))
    with pytest.raises(PlanError, match="nested too deeply|too many steps"):
        PlanFile.read(path)


def test_a_plan_for_another_model_is_refused(inventory: Callable[[str], Inventory]) -> None:
    """Another architecture; the same with other shapes.

    A target that cannot run a choice: before any weight is touched.
    """
    file = file_of(EXAMPLE, TOY)
    with pytest.raises(
        PlanError, match="made for Toy .toy., but the model is LlamaForCausalLM; give the model that it was made for"
    ):
        file.plan_for(inventory("llama"))
    with pytest.raises(PlanError, match="other.*; it has no layers.1; give that model or a fine-tune"):
        file.plan_for(strategies.toy_inventory(blocks=1))
    with pytest.raises(PlanError, match="names and shapes of toy, but this model has others; give"):
        file.plan_for(strategies.toy_inventory(blocks=3))
    with pytest.raises(
        PlanError,
        match="the plan does not fit: embed: .*; layers.0.attention: .*lowrank runs with target paredown only",
    ):
        file.plan_for(TOY, targets["transformers"])
    with pytest.raises(PlanError, match="runs with target paredown only"):
        file_of(EXAMPLE, TOY, target="transformers").plan_for(TOY)


def test_a_plan_applies_to_a_fine_tune_in_another_dtype() -> None:
    """Keyed by names and shapes; the bytes of what is kept follow the dtype of the fine-tune."""
    wide = strategies.toy_inventory(dtype="float32")
    plan = file_of(EXAMPLE, TOY).plan_for(wide)
    assert plan == EXAMPLE
    assert plan.size_bytes(wide) > EXAMPLE.size_bytes(TOY)


def test_a_plan_for_matrices_together_serves_them_one_by_one(pico: Callable[[str], Path]) -> None:
    """And the other way round, where they agree."""
    four, eight = parse_choice("quantize bits=4 group_size=channel"), parse_choice("quantize bits=8 group_size=channel")
    tied, free = inventory_of(pico("llama"), ties=[("q_proj", "k_proj")]), inventory_of(pico("llama"))
    together = Plan.of(tied, {site.name: four for site in tied.leaves if site.block is not None})
    alone = Plan.of(free, {site.name: four for site in free.leaves if site.block is not None})
    assert file_of(together, tied).plan_for(free) == alone
    assert file_of(alone, free).plan_for(tied) == together
    name = next(site.name for site in free.leaves if site.name.endswith("0.self_attn.q_proj"))
    apart = Plan.of(free, {**alone.choices, name: eight})
    with pytest.raises(
        PlanError, match=r"one choice for all of .*\{q,k\}_proj, but the plan has several; make them equal"
    ):
        file_of(apart, free).plan_for(tied)
