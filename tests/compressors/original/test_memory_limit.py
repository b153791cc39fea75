"""What memory a study may take, and that it changes no number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from paredown.compressors.original.memory_limit import SHARE, available_bytes, memory_bytes
from paredown.deploy.engines.transformers import TorchModel
from paredown.search.cost.cost import LIBRARIES_BYTES, memory
from paredown.search.workbench.survey import survey
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import parse_choice
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.study_file import StudyFile
from shared import toys

Folder = Callable[[str], Path]
TOKENS = {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32}


def study(model: Path, root: Path, **changes: object) -> StudyFile:
    data = str(toys.write_text(root / "text.txt", toys.passages(120)))
    return StudyFile.model_validate(
        {"model": str(model), "data": [data], "latency": "off", "tokens": TOKENS, **changes}
    )


def test_a_size_or_a_share_of_what_is_available() -> None:
    assert memory_bytes("8GB") == 8 * 10**9
    assert memory_bytes("1.5MiB") == 3 << 19
    assert 0 < memory_bytes("auto") < available_bytes()
    assert memory_bytes("auto") == pytest.approx(SHARE * available_bytes(), rel=0.2)


@pytest.mark.parametrize("text", ["45%", "4bpw", "much", "-1GB"])
def test_what_is_no_size_is_refused(pico: Folder, tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="expected auto, or a size such as 8GB"):
        study(pico("llama"), tmp_path, memory=text)


def test_memory_is_not_fixed_by_a_study(pico: Folder, tmp_path: Path) -> None:
    """A study may go on with more of it."""
    more, less = study(pico("llama"), tmp_path, memory="1GB"), study(pico("llama"), tmp_path)
    assert more.fixed_settings() == less.fixed_settings()


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_streamed_study_measures_the_same(pico: Folder, tmp_path: Path, name: str) -> None:
    """Losses of any plan, bit by bit; records of the bank are shared."""
    resident = Workbench.open(study(pico(name), tmp_path), tmp_path / "bank", 1)
    streamed = Workbench.open(study(pico(name), tmp_path, memory="1KB"), tmp_path / "bank", 1)
    assert streamed.planned.stream and not resident.planned.stream
    inventory = resident.space.inventory
    gptq = {
        site.name: parse_choice("quantize bits=3 algorithm=gptq") for site in inventory.leaves if site.kind == "linear"
    }
    embedding = {site.name: parse_choice("quantize bits=8") for site in inventory.leaves if site.kind == "embedding"}
    drop = {site.name: parse_choice("drop") for site in inventory.parents if site.kind == "block" and site.block == 1}
    for choices in ({}, gptq, embedding, {**gptq, **drop}, {}):
        plan = Plan.of(inventory, choices)
        one, other = resident.evaluator.measure(plan), streamed.evaluator.measure(plan)
        assert (one.totals == other.totals).all()
        assert one.perplexity == other.perplexity
        assert (one.mean > 0) == bool(choices)


def test_the_estimate_of_a_streamed_study_does_not_grow_with_depth(tmp_path: Path) -> None:
    """The estimate of a study with weights in memory grows at least by the weights."""
    config = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    found, weights = {}, []
    for layers in (1, 5):
        model = LlamaForCausalLM(LlamaConfig(**config, num_hidden_layers=layers))
        model.save_pretrained(tmp_path / str(layers))
        weights.append(4 * sum(parameter.numel() for parameter in model.parameters()))
        for limit in ("1KB", "1GB"):
            study_file = study(tmp_path / str(layers), tmp_path, memory=limit)
            found[layers, limit] = memory(study_file, survey(study_file)[1])
    assert found[5, "1KB"] == found[1, "1KB"] > LIBRARIES_BYTES
    assert found[5, "1GB"] - found[1, "1GB"] > weights[1] - weights[0] > 0


def test_what_needs_the_whole_model_is_refused(pico: Folder, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="timing plans builds the model, which takes .*; set latency: off"):
        Workbench.open(study(pico("llama"), tmp_path, memory="1KB"), tmp_path / "bank", 1).latency_table(
            tmp_path / "latency.json", TorchModel
        )
