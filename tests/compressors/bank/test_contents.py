"""What a bank holds, and its cleaning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.contents import USED, Count, clean, holdings
from paredown.compressors.bank.fill import fill
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.space.choice import parse_choice
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from paredown.space.statistics import Statistics
from paredown.space.system.temporary import temporary_folder

SITE = "model.layers.0.mlp.up_proj"
PLAIN, COMPOSED = parse_choice("quantize bits=4"), parse_choice("lowrank rank=4 then quantize bits=8")
GPTQ = parse_choice("quantize bits=4 algorithm=gptq")


@pytest.fixture
def bank(pico: Callable[[str], Path], inventory: Callable[[str], Inventory], tmp_path: Path) -> Bank:
    """Three records, one of them calibrated, and statistics of the same texts and of others."""
    import torch

    parameters = {name: tensor.detach() for name, tensor in parameters_of(load_original(pico("llama"))).items()}
    statistics = {SITE: Statistics(second_moment=torch.eye(32), mean_absolute=torch.ones(32))}
    bank = Bank(tmp_path / "bank", parameters, statistics, "a" * 64, checkpoint=pico("llama"))
    fill(bank, [(inventory("llama")[SITE], choice) for choice in (PLAIN, COMPOSED, GPTQ)], checkpoint=pico("llama"))
    for key in ("a" * 64, "b" * 64):
        (bank.folder / "statistics" / key).mkdir(parents=True)
        (bank.folder / "statistics" / key / "index.json").write_text("{}")
    return bank


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_behind(parent: Path) -> Path:
    """What a process leaves that was killed while it wrote."""
    path = parent / ".unfinished-x1y2" / "file"
    path.parent.mkdir()
    path.write_bytes(b"half")
    return path


def test_a_bank_says_what_it_holds(
    bank: Bank, inventory: Callable[[str], Inventory], pico: Callable[[str], Path]
) -> None:
    found = holdings(bank.folder)
    size = {choice: bank.path(inventory("llama")[SITE], choice).stat().st_size for choice in (PLAIN, COMPOSED, GPTQ)}
    assert found.methods == {
        "quantize": Count(records=2, bytes=size[PLAIN] + size[GPTQ]),
        "lowrank then quantize": Count(records=1, bytes=size[COMPOSED]),
    }
    assert found.calibrations == {"a" * 64: Count(records=1, bytes=size[GPTQ])}
    assert found.statistics == {key: Count(records=1, bytes=2) for key in ("a" * 64, "b" * 64)}
    assert found.models == [str(pico("llama"))]
    assert found.total == Count(records=3, bytes=sum(size.values()) + 4)
    assert found.forgotten == found.unfinished == Count()


@pytest.fixture
def written_now(bank: Bank) -> Iterator[Path]:
    """What a live process is writing."""
    with temporary_folder(bank.folder) as folder:
        (folder / "file").write_bytes(b"now")
        yield folder


@pytest.mark.usefixtures("written_now")
def test_cleaning_removes_only_what_nobody_finds_again(bank: Bank, tmp_path: Path) -> None:
    """Torn records, and what a kill left; not what is being written now, nor what is not the bank's."""
    record = next(bank.folder.glob("??/*.safetensors"))
    torn = record.parent / f"{'0' * 62}.safetensors"
    torn.write_bytes(b"torn")
    left = [left_behind(bank.folder), left_behind(bank.folder / "statistics")]
    strangers = [
        bank.folder / "notes.txt",
        record.parent / "notes.safetensors",
        bank.folder / "statistics" / "mine" / "x",
        tmp_path / "y",
    ]
    strangers += [bank.folder / "zz" / torn.name, bank.folder / "model.safetensors"]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    before = files(tmp_path)
    planned = clean(bank.folder)
    assert files(tmp_path) == before
    assert (planned.forgotten, planned.unfinished, planned.unneeded) == (
        Count(records=1, bytes=4),
        Count(records=2, bytes=8),
        Count(),
    )
    assert not planned.removed
    done = clean(bank.folder, dry_run=False)
    assert (done.forgotten, done.unfinished, done.removed) == (planned.forgotten, planned.unfinished, True)
    assert files(tmp_path) == {path: data for path, data in before.items() if path not in (torn, *left)} | {
        bank.folder / ".lock": b""
    }
    assert clean(bank.folder).bytes == 0


def test_what_no_kept_study_needs_goes(bank: Bank, inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """With the statistics that none of its records or studies was calibrated on.

    What one study needs stays whatever others need.
    """
    site = inventory("llama")[SITE]
    studies = []
    for number, choice in enumerate((PLAIN, GPTQ)):
        path = bank.path(site, choice)
        folder = tmp_path / f"study{number}"
        folder.mkdir()
        (folder / "bank.json").write_text(
            json.dumps({"records": [path.parent.name + path.stem], "statistics": "a" * 64})
        )
        studies.append(folder)
    lost = [bank.path(site, COMPOSED), bank.folder / "statistics" / ("b" * 64) / "index.json"]
    before = files(bank.folder)
    planned = clean(bank.folder, studies)
    assert planned.unneeded == Count(records=2, bytes=sum(path.stat().st_size for path in lost))
    assert files(bank.folder) == before
    clean(bank.folder, studies, dry_run=False)
    assert files(bank.folder) == {path: data for path, data in before.items() if path not in lost} | {
        bank.folder / ".lock": b""
    }
    fill(bank, [(site, COMPOSED)], checkpoint=tmp_path)
    assert bank.path(site, COMPOSED).read_bytes() == before[lost[0]]


def test_what_is_no_bank_is_left_alone(tmp_path: Path, bank: Bank) -> None:
    (tmp_path / "photos" / "aa").mkdir(parents=True)
    (tmp_path / "photos" / "aa" / "cat.safetensors").write_text("cat")
    for folder in (tmp_path / "photos", tmp_path / "missing"):
        with pytest.raises(StudyError, match=f"{folder} holds no bank of compressed sites; give a study folder, or"):
            clean(folder, dry_run=False)
    with pytest.raises(
        StudyError, match="photos names no records of a bank; give a study folder whose search filled one"
    ):
        clean(bank.folder, [tmp_path / "photos"], dry_run=False)
    (tmp_path / "photos" / USED).write_text("[]")
    with pytest.raises(StudyError, match="run the study's search again to rewrite it"):
        clean(bank.folder, [tmp_path / "photos"], dry_run=False)
    assert (tmp_path / "photos" / "aa" / "cat.safetensors").is_file()
    assert holdings(bank.folder).total.records == 3


def test_a_study_folder_is_its_bank(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("model: m\n")
    assert holdings(tmp_path) == holdings(bank.folder)
