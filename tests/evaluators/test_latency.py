"""Times of deployed layers, added up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paredown
from paredown.cli.progress import Silent
from paredown.compressors.bank.bank import Bank
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators import latency, timing
from paredown.evaluators.latency import LatencyTable, deployed, deployed_plan, measure_table
from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from shared import toys

CALIBRATED = "lowrank-residual rank=16 algorithm=whitened then quantize bits=4 group_size=32 algorithm=gptq"
WISHES = {
    "choices": {
        "linear": ["quantize bits=4 group_size=32", "quantize bits=8", "lowrank rank=8", CALIBRATED, "keep"],
        "embedding": ["quantize bits=8", "keep"],
        "ffn": ["prune-neurons sparsity=0.5"],
        "block": ["drop"],
    },
    "max_drops": 1,
}


@pytest.fixture(scope="module")
def space(pico: Callable[[str], Path]) -> Space:
    return Space.build(inventory_of(pico("llama")), targets["paredown"], SpaceFile.model_validate(WISHES))


@pytest.fixture(scope="module")
def build(pico: Callable[[str], Path], space: Space, tmp_path_factory: pytest.TempPathFactory) -> latency.Build:
    parameters = {name: tensor.detach() for name, tensor in parameters_of(load_original(pico("llama"))).items()}
    bank, config = Bank(tmp_path_factory.mktemp("bank"), parameters), config_of(pico("llama"))
    return lambda plan: TorchModel(deployed(bank, config, space.inventory, plan, torch.bfloat16), causal=True)


@pytest.fixture(scope="module")
def table(space: Space, build: latency.Build) -> LatencyTable:
    """Measured in little time, so with much noise; what holds for it holds for any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "REPEATS", 3)
        patch.setattr(timing, "MOST_COPIES", 1)
        return measure_table(space, build, torch.bfloat16, "a test's machine")


def drawn(space: Space, draw: st.DataObject) -> dict[str, Choice]:
    return {site.name: draw.draw(st.sampled_from((KEEP, *space.options[site.name]))) for site in space.inventory.sites}


def test_every_kernel_that_the_space_asks_for_is_timed(table: LatencyTable, space: Space) -> None:
    assert all(decode > 0 and prefill > 0 for decode, prefill in table.kernels.values())
    assert {"int4 64x32", "int8 64x32", "dense 64x32", "dense 128x32", "dense 32x32"} <= set(table.kernels)
    assert any(name.startswith("lowrank-8") for name in table.kernels)
    assert "residual-16-int8-int8-int4 64x32" in table.kernels
    assert len(table.calibration) >= 3
    assert min(*table.scale, *table.per_block_ms) >= 0
    assert max(*table.scale, *table.per_block_ms) > 0
    for times in table.calibration.values():
        assert set(times) == {"decode_ms", "decode_fitted_ms", "prefill_ms", "prefill_fitted_ms"}


def test_a_table_comes_back_from_its_file(table: LatencyTable, tmp_path: Path) -> None:
    table.write(tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == table
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema_version": 2}'])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "table.json").write_text(text)
    with pytest.raises(
        StudyError, match="is not a latency table .*; remove the file, or leave `latency` out of the study"
    ):
        LatencyTable.read(tmp_path / "table.json")


@settings(max_examples=30)
@given(st.data())
def test_times_add_up(table: LatencyTable, space: Space, data: st.DataObject) -> None:
    """What two sites gain together is what each gains alone."""
    inventory = space.inventory
    one, other = data.draw(
        st.lists(st.sampled_from([s for s in inventory.leaves]), min_size=2, max_size=2, unique=True)
    )
    choices = {site.name: data.draw(st.sampled_from(space.options[site.name])) for site in (one, other)}
    whole = table.predict(inventory, Plan())
    alone = [table.predict(inventory, Plan.of(inventory, {name: choice})) for name, choice in choices.items()]
    both = table.predict(inventory, Plan.of(inventory, choices))
    for i in (0, 1):
        assert both[i] - whole[i] == pytest.approx(sum(a[i] - whole[i] for a in alone), abs=1e-9)


@settings(max_examples=30)
@given(st.data())
def test_a_dropped_block_is_never_slower(table: LatencyTable, space: Space, data: st.DataObject) -> None:
    choices = drawn(space, data) | {site.name: KEEP for site in space.inventory.parents if site.kind == "block"}
    before = table.predict(space.inventory, Plan.of(space.inventory, choices))
    for index in range(2):
        after = table.predict(
            space.inventory, Plan.of(space.inventory, choices | {f"model.layers.{index}": parse_choice("drop")})
        )
        assert after[0] <= before[0] and after[1] <= before[1]
        assert after[0] < before[0] or after[1] < before[1]


def test_a_plan_with_a_kernel_that_was_not_timed_has_no_time(table: LatencyTable, space: Space) -> None:
    """Its time is unknown; where a limit needs it, the message names the kernel and the remedy."""
    choice = parse_choice("lowrank rank=5")
    assert table.predict(space.inventory, Plan.of(space.inventory, {"model.layers.0.mlp.up_proj": choice})) is None
    with pytest.raises(StudyError, match="the latency table lacks lowrank-5.* 64x32; .* measure a new table"):
        table.site_ms(space.inventory["model.layers.0.mlp.up_proj"], choice)


class Teller(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


FEW = {"linear": ["quantize bits=4 group_size=16", "quantize bits=8 group_size=16"], "embedding": ["keep"], "block": []}


SPAN = {**FEW, "linear": ["quantize bits=4 group_size=32", "keep"], "attention": [], "ffn": []}


def few(model: Path, root: Path, **changes: object) -> dict[str, object]:
    """A study whose uniform plans run in kernels that no choice of its space needs."""
    tokens = {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32}
    data = [str(toys.write_text(root / "text.txt", toys.passages(120)))]
    space = {"choices": {**FEW, "attention": [], "ffn": []}}
    return {
        "model": str(model),
        "data": data,
        "budget": "60%",
        "trials": 3,
        "tokens": tokens,
        "space": space,
        **changes,
    }


def test_a_study_of_few_choices_knows_every_time(
    pico: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of uniform plans are timed as well; with a table that lacks them the study runs too, and says so."""
    monkeypatch.setattr(timing, "REPEATS", 2)
    monkeypatch.setattr(timing, "MOST_COPIES", 1)
    found = paredown.find_plan(few(pico("llama"), tmp_path), tmp_path / "study", workers=1)
    assert {trial.origin for trial in found.trials.measured} >= {"uniform", "solver"}
    assert all(
        trial.times.decode_ms is not None and trial.times.prefill_ms is not None for trial in found.trials.measured
    )

    whole = LatencyTable.read(tmp_path / "study" / "latency.json")
    lacking = {name: times for name, times in whole.kernels.items() if name.startswith("dense")}
    assert len(lacking) < len(whole.kernels)
    whole.model_copy(update={"kernels": lacking}).write(tmp_path / "lacking.json")
    question = few(pico("llama"), tmp_path, latency=str(tmp_path / "lacking.json"))
    bank, teller = tmp_path / "study" / "bank", Teller()
    known = paredown.find_plan(question, tmp_path / "again", bank=bank, workers=1, progress=teller)
    assert known.state == "finished"
    assert [
        text
        for text in teller.said
        if "lacking.json lacks " in text and "plans with such a kernel get no predicted time" in text
    ]
    assert {trial.times.decode_ms is None for trial in known.trials.measured} == {True, False}
    with pytest.raises(StudyError, match="the latency table lacks int4 .*; remove the file, or leave `latency` out"):
        paredown.find_plan(
            {**question, "max_decode_ms": 1e3, "space": {"choices": SPAN}}, tmp_path / "limited", bank=bank, workers=1
        )


def test_transformers_computes_dense(space: Space) -> None:
    """Only a plan's dropped blocks change its time there."""
    choices = {"model.layers.0": parse_choice("drop"), "model.layers.1.mlp.up_proj": parse_choice("quantize bits=4")}
    plan = Plan.of(space.inventory, choices)
    assert deployed_plan(plan, space.inventory, targets["paredown"]) == plan
    assert deployed_plan(plan, space.inventory, targets["transformers"]) == Plan.of(
        space.inventory, {"model.layers.0": parse_choice("drop")}
    )
