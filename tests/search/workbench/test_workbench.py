"""A study's model, texts and bank, opened together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.evaluators.sequences import check_tokens
from paredown.search.workbench.inputs import Inputs
from paredown.search.workbench.texts import Texts
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import parse_choice
from paredown.space.errors import CheckpointError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import Calibration
from paredown.space.study_file import StudyFile
from shared import toys

Folder = Callable[[str], Path]
TOKENS = {"calibration": 200, "search": 256, "selection": 128, "held_out": 128, "sequence_length": 32}
GPTQ = "quantize bits=3 group_size=16 algorithm=gptq"


@pytest.fixture(scope="module")
def study_file(pico: Folder, tmp_path_factory: pytest.TempPathFactory) -> StudyFile:
    data = str(toys.write_text(tmp_path_factory.mktemp("texts") / "text.txt", toys.passages(60)))
    return StudyFile.model_validate({"model": str(pico("llama")), "data": [data], "seed": 3, "tokens": TOKENS})


@pytest.fixture(scope="module")
def bench(study_file: StudyFile, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench.open(study_file, tmp_path_factory.mktemp("bench") / "bank", workers=1)


def uniform(bench: Workbench) -> Plan:
    sites = [site for site in bench.space.inventory.leaves if site.kind == "linear"]
    return Plan.of(bench.space.inventory, {site.name: parse_choice(GPTQ) for site in sites})


def test_what_the_numbers_depend_on_is_checked_before_any_is_computed(study_file: StudyFile, tmp_path: Path) -> None:
    """Neither statistics nor records exist when the check refuses."""
    seen: list[Inputs] = []

    def refuse(found: Inputs) -> None:
        seen.append(found)
        raise StudyError("refused")

    with pytest.raises(StudyError, match="refused"):
        Workbench.open(study_file, tmp_path / "bank", 1, refuse)
    assert seen[0].texts.keys() == {"calibration", "search", "selection", "held-out"}
    assert not (tmp_path / "bank" / "statistics").exists()


def test_a_draw_reads_other_documents_of_the_calibration_set(bench: Workbench) -> None:
    """Draw 0 is the set itself, as a plan file names it; a draw is the same each time."""
    texts = bench.texts
    assert texts.calibration() is texts.sequences["calibration"]
    assert texts.calibration(1).sha256() == texts.calibration(1).sha256()
    assert len({texts.calibration(draw).sha256() for draw in range(3)}) == 3
    named = Calibration(**texts.calibration_texts, in_order=False)
    assert (named.tokens, named.sequence_length, named.seed) == (200, 32, 3)
    assert named.sha256 == texts.sha256["calibration"] == texts.calibration().sha256()


def test_a_tokenizer_of_another_model_is_refused(bench: Workbench, study_file: StudyFile, pico: Folder) -> None:
    """Tokens that the model lacks would be an error deep in its embedding."""
    largest = max(int(part.tokens.max()) for part in bench.texts.sequences.values())
    config = type("Config", (), {"vocab_size": largest + 1})()
    check_tokens(bench.texts.sequences.values(), config)
    config.vocab_size = largest
    with pytest.raises(CheckpointError, match=f"token {largest}, but .* has {largest} entries; use the tokenizer of"):
        check_tokens(bench.texts.sequences.values(), config)
    assert Texts.of(study_file, pico("llama")).sha256 == bench.texts.sha256


def test_the_original_is_read_without_disturbing_the_plan_in_place(bench: Workbench) -> None:
    """Its predictions on a set are computed once, whatever plan the model has then."""
    plan = uniform(bench)
    bench.planned.swap(plan)
    teacher = bench.evaluator.teacher("selection")
    assert bench.planned.plan == plan
    assert bench.evaluator.teacher("selection") is teacher
    assert bench.evaluator.measure(Plan(), "selection").mean == 0


def test_a_rung_is_the_first_sequences_of_the_search_set(bench: Workbench) -> None:
    plan, evaluator = uniform(bench), bench.evaluator
    whole = evaluator.measure(plan)
    assert evaluator.measure_rung(plan, None).sequences == whole.sequences
    assert evaluator.measure_rung(plan, 3).sequences == pytest.approx(whole.sequences[:3])


def test_a_plan_is_measured_with_the_records_of_the_bank_that_is_given(bench: Workbench) -> None:
    """Another calibration draw gives other codes, so another loss."""
    plan = uniform(bench)
    other = bench.banks.on(bench.texts.calibration(1))
    assert bench.evaluator.measure(plan, "search", other).mean != bench.evaluator.measure(plan).mean


def test_the_bank_holds_every_choice_and_those_of_other_plans(bench: Workbench) -> None:
    """A codebook is for storage only, so that no site is offered one; the plan beside has one everywhere."""
    inventory, cluster = bench.space.inventory, parse_choice("cluster clusters=16")
    beside = Plan.of(inventory, {site.name: cluster for site in inventory.leaves if site.kind == "linear"})
    assert all(choice not in bench.space.options[site] for site, choice in beside.entries)
    bench.fill_bank([beside])
    pairs = [(site, choice) for site in inventory.leaves for choice in bench.space.options[site.name]]
    assert all(bench.bank.holds(site, choice) for site, choice in [*pairs, *beside.decided(inventory)])


def test_no_plan_changes_a_parameter_of_the_original(bench: Workbench) -> None:
    before = {name: tensor.clone() for name, tensor in bench.bank.parameters.items()}
    bench.evaluator.measure(uniform(bench))
    assert all(torch.equal(tensor, before[name]) for name, tensor in bench.bank.parameters.items())
