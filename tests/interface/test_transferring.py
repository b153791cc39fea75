"""A plan for another model, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from paredown.compressors.original.checkpoint import skeleton
from paredown.compressors.original.find_sites import walk
from paredown.search.outcome.inventory_file import write_inventory
from paredown.space.budget import Budget
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.transfer import transferred
from paredown.transferring import budget_of, original_of
from shared import pico as families
from shared.commands import TOKENS, call, write_text
from tests.space.test_transfer import LARGE, SMALL, TARGET, file_of

SPACE = """space:
  choices:
    linear:
    - quantize bits=3 group_size=16 algorithm=gptq
    - quantize bits=4 group_size=16 algorithm=gptq
    - quantize bits=8
    embedding: [quantize bits=4, quantize bits=6]
"""


@pytest.fixture(scope="module")
def workshop(pico: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of a pico Llama; a deeper and wider one, and a study file of it."""
    folder = tmp_path_factory.mktemp("transfer")
    torch.manual_seed(0)
    config = LlamaConfig(
        **{**families._GATED, "num_hidden_layers": 3, "hidden_size": 64},
        intermediate_size=96,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "deeper")
    families.tokenizer().save_pretrained(folder / "deeper")
    (folder / "study.yaml").write_text(
        f"model: {folder / 'deeper'}\ndata: {write_text(folder / 'text.txt')}\n{TOKENS}\n{SPACE}"
    )
    texts = {"linear": "quantize bits=4 group_size=16 algorithm=gptq", "embedding": "quantize bits=6"}
    choices = {site.name: parse_choice(texts[site.kind]) for site in SMALL.leaves} | {
        "model.layers.1.self_attn.k_proj": parse_choice("cast")
    }
    file_of(Plan.of(SMALL, choices), SMALL, str(pico("llama"))).write(folder / "plan.yaml")
    return folder


def test_a_plan_is_transferred_and_measured(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many bytes a parameter and no more; what it gains over uniform, and what it cost beside a search, is said.

    The file applies.
    """
    flags = ("--study", workshop / "study.yaml", "--trials", 2, "--workers", 1, "--out", out := workshop / "out.yaml")
    assert call(monkeypatch, "transfer", workshop / "plan.yaml", *flags) == 0
    said = capsys.readouterr().out
    assert "was carried over by relative depth and role" in said
    assert "of the best uniform plan's" in said
    assert "a new search (100 trials) would read" in said
    deeper = Space.build(
        walk(skeleton(LlamaConfig.from_pretrained(workshop / "deeper")), {}, "float32"), TARGET
    ).inventory
    first, file = PlanFile.read(workshop / "plan.yaml"), PlanFile.read(out)
    assert (
        file.plan_for(deeper).size_bytes(deeper)
        == file.size_bytes
        <= first.size_bytes * deeper.parameters // SMALL.parameters
    )
    assert file.base_model.name == str(workshop / "deeper")
    assert file.quality is not None
    assert file.quality["measured_on"] == "held-out"
    assert file.compared_with is not None
    (against,) = file.compared_with.values()
    gains = against["ratio_ci95"][1] < 1
    assert ("no significant gain: the uniform plan was written" in said) == (not gains)
    assert file.provenance["origin"] == ("transfer" if gains else "uniform")
    assert file.provenance["made_for"] == first.base_model.name
    assert 0 < file.provenance["tokens"] < file.provenance["tokens_anew"]


def test_a_fine_tune_takes_the_plan_by_name(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is changed to fit, and without trials nothing is moved."""
    tuned = families.save("llama", tmp_path / "tuned", seed=1)
    flags = (
        "--model",
        tuned,
        "--study",
        workshop / "study.yaml",
        "--trials",
        0,
        "--workers",
        1,
        "--out",
        tmp_path / "out.yaml",
    )
    assert call(monkeypatch, "transfer", workshop / "plan.yaml", *flags) == 0
    said = capsys.readouterr().out
    assert "carried over by name (" in said
    assert "changed at" not in said
    assert "bytes moved" not in said
    before, after = PlanFile.read(workshop / "plan.yaml"), PlanFile.read(tmp_path / "out.yaml")
    assert after.provenance["origin"] == "uniform" or after.choices == before.choices


def test_bad_transfers(
    workshop: Path,
    pico: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another family and no model are one line and exit code 2.

    An impossible budget leaves the smallest plan, exit code 3.
    """
    start, out = ("transfer", workshop / "plan.yaml", "--study", workshop / "study.yaml"), tmp_path / "out.yaml"
    for code, flags, message in (
        (2, ("--model", pico("gpt2")), "another family; give a model of the plan's architecture"),
        (2, ("--model", tmp_path / "none"), "no model folder"),
        (2, ("--budget", "lots"), "expected a budget such as 45%"),
        (3, ("--budget", "1%"), "nothing meets the budget of"),
    ):
        assert call(monkeypatch, *start, *flags, "--out", out) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("paredown: ")]
        assert len(lines) == 1
        assert message in lines[0]
    assert f"{PlanFile.read(out).size_bytes:,}" in lines[0]


@pytest.mark.parametrize(("held", "known"), [(SMALL, True), (LARGE, False)])
def test_the_first_model_is_found_beside_its_plan(held: Inventory, known: bool, tmp_path: Path) -> None:
    """In the study folder that the plan lies in, if that is of the same model.

    Then a plan may take as much a parameter there as here.
    """
    write_inventory(held, tmp_path)
    file = file_of(Plan.of(SMALL, {"model.embed_tokens": parse_choice("cast")}), SMALL, "models/nowhere")
    original = original_of(file, tmp_path / "best" / "plan.yaml")
    assert original == (SMALL if known else None)
    plan = transferred(file, Space.build(LARGE, TARGET), original)
    size = plan.size_bytes(LARGE)
    asked = StudyFile(model="models/large")
    expected = file.size_bytes * LARGE.parameters // SMALL.parameters if known else size
    assert budget_of(asked, file, original, plan, LARGE) == expected
    assert budget_of(asked, file_of(plan, LARGE), LARGE, plan, LARGE) == size
    assert budget_of(StudyFile(model="models/large", budget=Budget.parse("30%")), file, original, plan, LARGE) == int(
        0.3 * LARGE.original_bytes
    )
