"""Calibrated sites of a plan, from a study's bank or compressed here on the calibration texts that the plan names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.fill import cores
from paredown.compressors.bank.folder import bank_in_use
from paredown.compressors.model.calibrated_banks import CalibratedBanks, last_inputs
from paredown.compressors.model.sequential import is_calibrated
from paredown.compressors.original.checkpoint import config_of, resolve
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.memory_limit import memory_bytes
from paredown.compressors.original.origin import Origin
from paredown.deploy.apply import TensorsOf
from paredown.evaluators.sequences import Sequences, calibration_draw, check_tokens, tokenizer_of
from paredown.evaluators.sources import document_sets
from paredown.space.errors import PlanError
from paredown.space.plan import Plan
from paredown.space.plan_file import Calibration, PlanFile
from paredown.space.targets.target import targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Compressed sites of a plan.

    Attributes:
        tensors_of: Source of the sites; None if the plan has no calibrated choices.
        other_texts: True if the texts differ from those that the plan was measured with, so that its codes differ too.
        origin: Origin of the model; None if the plan has no calibrated choices.
    """

    tensors_of: TensorsOf | None = None
    other_texts: bool = False
    origin: Origin | None = None


@contextmanager
def ready(
    plan_file: PlanFile, model: str | Path, *, bank: Path | None = None, data: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Ready]:  # fmt: skip
    """The calibrated sites of a plan for a model, valid while the context is open.

    Args:
        plan_file: The plan.
        model: Folder or hub name of the original, or of a fine-tune.
        bank: Folder of compressed sites; missing ones are added. Default: a temporary folder.
        data: Calibration texts; default: those that the plan names.
        say: Called with a line for each damaged record that is recomputed.

    Raises:
        CheckpointError: If the model is missing, or has no tokenizer or another model's.
        PlanError: If the plan does not fit it, or names no texts and none are given.
        StudyError: If the texts are missing or too short.
        OutputError: If the bank cannot be written.
    """
    source = resolve(str(model))
    config = config_of(source)
    inventory = inventory_of(source, config, targets[plan_file.target].ties)
    plan = plan_file.plan_for(inventory)
    if not is_calibrated(plan, inventory):
        yield Ready()
        return
    asked = plan_file.calibration
    if asked is None:
        raise PlanError(
            "the plan has calibrated choices and names no calibration texts; "
            "add the calibration that paredown search wrote into it"
        )
    texts = _texts(asked, data, source, config)
    with bank_in_use(bank) as folder:
        origin = Origin.of(source, config, folder)
        needs = frozenset(need for _, choice in plan.entries for need in choice.needs)
        banks = CalibratedBanks.open(
            source, config, inventory, texts, folder=folder, origin=origin, needs=needs,
            memory_bytes=memory_bytes("auto"), workers=cores(), say=say,
        )  # fmt: skip
        filled = _in_order(banks, plan, texts) if asked.in_order else banks.on(texts)
        yield Ready(
            tensors_of=lambda site, choice: filled.tensors(site, choice) if choice.needs else None,
            other_texts=texts.sha256() != asked.sha256,
            origin=origin,
        )


def _texts(asked: Calibration, data: Sequence[str] | None, source: Path, config: Any) -> Sequences:
    tokenizer = tokenizer_of(source)
    documents = document_sets(data or asked.data)["calibration"]
    texts = calibration_draw(documents, tokenizer, tokens=asked.tokens, length=asked.sequence_length, seed=asked.seed)
    check_tokens([texts], config)
    return texts


def _in_order(banks: CalibratedBanks, plan: Plan, texts: Sequences) -> Bank:
    with last_inputs(banks) as inputs_on:
        return banks.in_order(plan, banks.planned.bank, texts, inputs_on)
