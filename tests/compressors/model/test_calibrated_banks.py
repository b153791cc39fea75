"""One opening of an original with its bank, for searches and for `apply`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paredown.compressors.model.calibrated_banks import CalibratedBanks, CalibrationTokens, last_inputs
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.find_sites import inventory_of
from paredown.compressors.original.origin import Origin
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan

Folder = Callable[[str], Path]
GPTQ = parse_choice("quantize bits=3 group_size=16 algorithm=gptq")


@dataclass(frozen=True)
class Tokens:
    tokens: Tensor
    mask: Tensor


def texts_of(seed: int) -> Tokens:
    tokens = torch.randint(2, 128, (6, 32), generator=torch.Generator().manual_seed(seed))
    return Tokens(tokens, torch.ones_like(tokens))


TEXTS, OTHER = texts_of(0), texts_of(1)


def opened(folder: Path, bank: Path, texts: CalibrationTokens = TEXTS) -> CalibratedBanks:
    config = config_of(folder)
    return CalibratedBanks.open(
        folder, config, inventory_of(folder, config), texts, folder=bank, origin=Origin.of(folder, config, bank),
        needs=frozenset(GPTQ.needs), memory_bytes=1 << 40, workers=1, say=lambda text: None,
    )  # fmt: skip


def uniform(banks: CalibratedBanks) -> Plan:
    inventory = banks.planned.inventory
    return Plan.of(inventory, {site.name: GPTQ for site in inventory.leaves if site.kind == "linear"})


def statistics_in(bank: Path) -> set[str]:
    return {path.name for path in (bank / "statistics").glob("*")}


def test_statistics_are_collected_when_a_bank_is_first_asked_for(pico: Folder, tmp_path: Path) -> None:
    """Opening collects none; the bank of the texts that were opened with is the model's own."""
    banks = opened(pico("llama"), tmp_path)
    assert statistics_in(tmp_path) == set()
    own = banks.on(TEXTS)
    assert own is banks.planned.bank and banks.on(TEXTS) is own
    assert statistics_in(tmp_path) == {own.calibration}


def test_other_texts_have_other_statistics_in_the_same_folder(pico: Folder, tmp_path: Path) -> None:
    """Whether they are a second draw of one opening or the own texts of another."""
    banks = opened(pico("llama"), tmp_path)
    own, other = banks.on(TEXTS), banks.on(OTHER)
    assert statistics_in(tmp_path) == {own.calibration, other.calibration}
    assert opened(pico("llama"), tmp_path, OTHER).planned.bank.calibration == other.calibration
    site = next(site for site in banks.planned.inventory.leaves if site.kind == "linear")
    assert own.folder == other.folder
    assert own.path(site, GPTQ) != other.path(site, GPTQ)


def test_statistics_are_of_the_original_whatever_plan_is_in_place(pico: Folder, tmp_path: Path) -> None:
    """A second draw is collected amid the final measurements, with some plan in the model."""
    banks = opened(pico("llama"), tmp_path / "one")
    banks.on(TEXTS)
    banks.planned.swap(uniform(banks))
    amid = banks.on(OTHER).statistics
    alone = opened(pico("llama"), tmp_path / "two").on(OTHER).statistics
    assert amid.keys() == alone.keys()
    assert all(torch.equal(amid[name]["second_moment"], alone[name]["second_moment"]) for name in alone)


def test_a_plan_that_is_held_in_order_needs_no_statistics(pico: Folder, tmp_path: Path) -> None:
    """What a search compressed in order, `apply` only reads; the bank may be read-only."""
    first = opened(pico("llama"), tmp_path)
    plan, inventory = uniform(first), first.planned.inventory
    with last_inputs(first) as inputs_on:
        made = first.in_order(plan, first.planned.bank, TEXTS, inputs_on)
    again = opened(pico("llama"), tmp_path)
    with last_inputs(again) as inputs_on:
        held = again.in_order(plan, again.planned.bank, TEXTS, inputs_on)
        assert not list(tmp_path.rglob("*unfinished-*"))
    assert not again.planned.bank.statistics
    assert all(held.path(site, choice) == made.path(site, choice) for site, choice in plan.decided(inventory))


def test_only_the_inputs_of_the_last_texts_are_kept(pico: Folder, tmp_path: Path) -> None:
    """They are as large as the texts times the width of the model; the folder is gone at the end."""
    banks = opened(pico("llama"), tmp_path / "bank")
    with last_inputs(banks) as inputs_on:
        first = inputs_on(TEXTS)
        files = set(first.files.values())
        assert inputs_on(TEXTS) is first
        name = next(iter(first))
        one = first[name].clone()
        other = inputs_on(OTHER)
        assert not any(path.exists() for path in files)
        assert not torch.equal(other[name], one)
        files = set(other.files.values())
    assert not any(path.exists() for path in files)
