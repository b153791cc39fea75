"""Compressed sites on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import decode_site, encode_site
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.space.choice import KEEP, parse_choice
from paredown.space.errors import OutputError
from paredown.space.site import Inventory
from shared.disk import small_disk

Inventories = Callable[[str], Inventory]
CHOICE = parse_choice("quantize bits=4 group_size=32")
NARROW = parse_choice("prune-neurons sparsity=0.5 then quantize bits=4")
SITE = "model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def weights(pico: Callable[[str], Path]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in parameters_of(load_original(pico("llama"))).items()}


@pytest.fixture
def bank(tmp_path: Path, weights: dict[str, Tensor]) -> Bank:
    return Bank(tmp_path / "bank", weights)


def files(bank: Bank) -> list[Path]:
    return [path for path in bank.folder.rglob("*") if path.is_file()]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_record_is_what_the_method_stores(bank: Bank, inventory: Inventories) -> None:
    """And what is decoded is what is decoded from it; the weights are not modified."""
    before = {name: tensor.clone() for name, tensor in bank.parameters.items()}
    ffn = next(site for site in inventory("llama").parents if site.kind == "ffn")
    for site, choice in ((inventory("llama")[SITE], CHOICE), (ffn, NARROW), (inventory("llama").leaves[0], CHOICE)):
        expected = encode_site(site, choice, bank.parameters)
        assert equal(bank.tensors(site, choice), expected)
        assert equal(bank.decoded(site, choice), decode_site(site, choice, expected))
        assert bank.holds(site, choice)
    assert len(files(bank)) == 3
    assert equal(before, dict(bank.parameters))


def test_what_is_kept_takes_no_record(bank: Bank, inventory: Inventories) -> None:
    site = inventory("llama")[SITE]
    assert bank.holds(site, KEEP)
    assert equal(bank.decoded(site, KEEP), {f"{SITE}.weight": bank.parameters[f"{SITE}.weight"]})
    assert equal(bank.tensors(site, KEEP), {f"{SITE}.weight": bank.parameters[f"{SITE}.weight"]})
    assert not bank.folder.exists()


def test_a_record_is_found_again(bank: Bank, inventory: Inventories, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bank on the same folder finds it without compressing again."""
    site = inventory("llama")[SITE]
    first = bank.tensors(site, CHOICE)
    monkeypatch.setattr("paredown.compressors.bank.bank.encode_site", None)
    assert equal(Bank(bank.folder, bank.parameters).tensors(site, CHOICE), first)


def test_another_version_of_a_distribution_has_other_records(
    bank: Bank, inventory: Inventories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the choices that it offers; all others keep theirs."""
    site, offered = inventory("llama")[SITE], "paredown.compressors.tensor_files.record_names.extensions"
    before = bank.path(site, CHOICE), bank.path(site, NARROW)
    for version in ("1", "2"):
        monkeypatch.setattr(offered, lambda _, names, v=version: {"other": v} if "prune-neurons" in names else {})
        now = bank.path(site, CHOICE), bank.path(site, NARROW)
        assert now[0] == before[0] and now[1] != before[1]
        before = now


def test_other_weights_or_knobs_are_other_records(bank: Bank, inventory: Inventories) -> None:
    """The same weights under the same name are the same record, also from another bank."""
    site, other = inventory("llama")[SITE], inventory("llama")["model.layers.1.mlp.up_proj"]
    changed = Bank(bank.folder, {**bank.parameters, f"{SITE}.weight": bank.parameters[f"{SITE}.weight"] * 1.01})
    paths = {
        bank.path(site, CHOICE),
        bank.path(site, parse_choice("quantize bits=4 group_size=16")),
        bank.path(other, CHOICE),
        changed.path(site, CHOICE),
    }
    assert len(paths) == 4
    assert changed.path(other, CHOICE) == bank.path(other, CHOICE)
    elsewhere = {**bank.parameters, f"{other.name}.weight": torch.zeros_like(bank.parameters[f"{other.name}.weight"])}
    assert Bank(bank.folder, elsewhere).path(site, CHOICE) == bank.path(site, CHOICE)


@pytest.mark.parametrize("length", [0, 4, 30, 1000, -1])
def test_a_torn_record_is_made_again(bank: Bank, inventory: Inventories, length: int) -> None:
    site = inventory("llama")[SITE]
    expected = {name: tensor.clone() for name, tensor in bank.tensors(site, CHOICE).items()}
    path = bank.path(site, CHOICE)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:length])
    assert equal(bank.tensors(site, CHOICE), expected)
    assert path.read_bytes() == data


def test_a_record_appears_whole_or_not_at_all(
    bank: Bank, inventory: Inventories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before it was named, it is not there, and the next fill makes it."""
    site = inventory("llama")[SITE]

    def killed(*_: object) -> None:
        assert not bank.holds(site, CHOICE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("paredown.space.system.temporary.os.replace", killed)
        bank.tensors(site, CHOICE)
    assert not bank.holds(site, CHOICE)
    assert equal(bank.tensors(site, CHOICE), encode_site(site, CHOICE, bank.parameters))
    assert bank.holds(site, CHOICE)


def test_a_full_disk_is_said_and_leaves_nothing_behind(bank: Bank, inventory: Inventories) -> None:
    message = "cannot write to the bank .*; free some space or name another folder with --bank"
    with pytest.raises(OutputError, match=message), small_disk(1000):
        bank.tensors(inventory("llama")[SITE], CHOICE)
    assert files(bank) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, weights: dict[str, Tensor], inventory: Inventories) -> None:
    (tmp_path / "bank").write_text("")
    with pytest.raises(OutputError, match="cannot write to the bank"):
        Bank(tmp_path / "bank", weights).tensors(inventory("llama")[SITE], CHOICE)


def test_the_cache_is_bounded(tmp_path: Path, weights: dict[str, Tensor], inventory: Inventories) -> None:
    """What was used last stays; what was let go is decoded again to the same numbers."""
    one = 64 * 32 * 4  # of up_proj, decoded to float32
    bank = Bank(tmp_path / "bank", weights, cache_bytes=2 * one)
    site = inventory("llama")[SITE]
    choices = [parse_choice(f"quantize bits={bits}") for bits in (2, 3, 4, 5)]
    first = bank.decoded(site, choices[0])
    assert bank.decoded(site, choices[0]) is first
    bank.decoded(site, choices[1])
    assert bank.decoded(site, choices[0]) is first
    bank.decoded(site, choices[2])  # lets go of the one used longest ago
    assert bank.decoded(site, choices[0]) is first
    for choice in choices[1:]:
        bank.decoded(site, choice)
    again = bank.decoded(site, choices[0])
    assert again is not first
    assert equal(again, first)
    for choice in choices * 3:
        bank.decoded(site, choice)
        assert sum(t.nbytes for decoded in bank._decoded.values() for t in decoded.values()) <= 2 * one
