"""Files of ours that were damaged: each is noticed, made again where that is possible, else refused in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paredown.compressors.calibration.collect import collect
from paredown.compressors.calibration.statistics_folder import StatisticsFolder
from paredown.compressors.numerics.group_removal import surgery
from paredown.compressors.numerics.hessian import hessian, inverse_factor
from paredown.compressors.original.weights_digest import Digests
from paredown.search.sensitivity.measurement_cache import Facts
from paredown.search.sensitivity.sensitivity import stored_losses
from paredown.search.sensitivity.stored import read_sensitivity
from paredown.search.study.select import select_plan
from paredown.space.choice import parse_choice
from paredown.space.errors import DamagedError, EvaluationError, StudyError
from paredown.space.site import Inventory
from paredown.space.system.files import read_json, write_json
from shared.estimated import SEQUENCES, evidence_of, prepared
from shared.made_study import make_study

Folder = Callable[[str], Path]
TRIES = 20
GPTQ = parse_choice("quantize bits=4 group_size=32 algorithm=gptq")
SITE = "model.layers.1.mlp.down_proj"


def damaged(data: bytes, seed: int) -> bytes:
    """The bytes cut short, emptied, replaced by others, or with one bit turned, each by its seed."""
    draw = random.Random(seed)
    kind = seed % 4
    if kind == 0:
        return data[: draw.randrange(len(data))]
    if kind == 1:
        return draw.choice([b"", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 10**5, draw.randbytes(len(data))])
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def flip_codes(path: Path, seed: int, share: float = 0.01) -> None:
    """Turns one bit in a share of the packed words of a record, and leaves the rest of the file as it was."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    begin, end = next(value["data_offsets"] for key, value in header.items() if key.endswith("weight_packed"))
    draw = random.Random(seed)
    for place in draw.sample(range(begin, end), max(1, int(share * (end - begin)))):
        data[8 + length + place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def test_json_of_ours_is_what_was_written_or_refused(tmp_path: Path) -> None:
    """No cut, bit or value changed by hand passes; what is whole but of another kind is refused with its place."""
    path, content = tmp_path / "facts.json", {"a": 0.25, "b": float("inf"), "c": -1e-9}
    write_json(path, content)
    data = path.read_bytes()
    assert read_json(path, dict[str, float], StudyError, "make it again") == content
    for seed in range(5 * TRIES):
        path.write_bytes(damaged(data, seed))
        if json.loads(data) != _or_none(path):
            with pytest.raises(StudyError, match=r"^\S+facts\.json is damaged \(.*\); make it again$"):
                read_json(path, dict[str, float], StudyError, "make it again")
    write_json(path, {"a": "0.25"})
    with pytest.raises(StudyError, match=r"is damaged \(a: .*valid number.*\)"):
        read_json(path, dict[str, float], StudyError, "make it again")
    with pytest.raises(StudyError, match=r"gone\.json cannot be read \(No such file"):
        read_json(tmp_path / "gone.json", dict[str, float], StudyError, "make it again")


def _or_none(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def test_damaged_records_are_made_again_with_a_line(pico: Folder, tmp_path: Path) -> None:
    """After flipped codes, cuts and turned bits the numbers stay; one line names the record, and it comes once."""
    space, planned = prepared(pico("llama"), tmp_path)
    bank, site = planned.bank, space.inventory[SITE]
    said: list[str] = []
    bank.say = said.append
    whole = {name: tensor.clone() for name, tensor in bank.tensors(site, GPTQ).items()}
    path = bank.path(site, GPTQ)
    data = path.read_bytes()
    for seed in range(2 * TRIES):
        path.unlink()  # whoever has it mapped keeps what was there
        path.write_bytes(data if seed < TRIES else damaged(data, seed))
        if seed < TRIES:
            flip_codes(path, seed)
        found = bank.tensors(site, GPTQ) if seed % 2 else _held(bank.holds(site, GPTQ), bank.tensors(site, GPTQ))
        assert all(torch.equal(found[name], whole[name]) for name in whole)
        assert path.read_bytes() == data
        expected = f"the record of {SITE} ({GPTQ}) in {bank.folder} is damaged: it is recomputed"
        assert set(said) <= {expected}
        if seed < TRIES:
            assert said
        said.clear()
        bank.tensors(site, GPTQ)
        assert not said


def _held(held: bool, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    assert not held
    return found


def test_damaged_statistics_are_collected_again(pico: Folder, tmp_path: Path) -> None:
    """A file or index with NaN or other numbers, cut, turned or gone, gives one line; the next call makes it again."""
    space, planned = prepared(pico("llama"), tmp_path)
    folder = tmp_path / "statistics"
    whole = StatisticsFolder(folder)[SITE]
    moment, name = whole["second_moment"].clone(), StatisticsFolder(folder).files[SITE]
    for seed in range(2 * TRIES):
        path = folder / (name if seed < TRIES else "index.json")
        data = path.read_bytes()
        path.unlink()
        if seed % 5 == 0 and seed < TRIES:
            tensors = {"second_moment": moment.clone(), "mean_absolute": torch.ones(len(moment))}
            tensors["second_moment"][seed % len(moment), seed % len(moment)] = float("nan")
            save_file(tensors, path)
        elif seed != 6:
            path.write_bytes(damaged(data, seed))
        if seed % 4 > 1 and _same(path, data):
            continue
        with pytest.raises(
            DamagedError, match=r"(is damaged|cannot be read) \(.*\); .* the same command collects statistics again"
        ):
            StatisticsFolder(folder)[SITE]
        assert not (folder / "index.json").exists()
        again = collect(planned.model, space.inventory, SEQUENCES.tokens, SEQUENCES.mask, folder)
        assert torch.equal(again[SITE]["second_moment"], moment)


def _same(path: Path, data: bytes) -> bool:
    """Whether a turned bit changed nothing that is read: spaces in JSON, padding in a header."""
    if path.suffix == ".json":
        return _or_none(path) == json.loads(data)
    try:
        return all(
            torch.equal(tensor, other)
            for tensor, other in zip(load_file(path).values(), _load(data, path), strict=True)
        )
    except Exception:  # whatever a damaged header makes of it
        return False


def _load(data: bytes, path: Path) -> list[torch.Tensor]:
    from safetensors.torch import load

    return list(load(data).values())


@pytest.mark.parametrize("spoil", ["diagonal", "elsewhere", "negative", "indefinite"])
def test_a_matrix_that_is_no_second_moment_is_refused(spoil: str) -> None:
    """Not taken for inputs that are all zero, and no damping is tried for ever."""
    moment = torch.eye(32) + 0.1
    if spoil == "indefinite":
        moment[3, 4] = moment[4, 3] = 1e6
    else:
        column = 4 if spoil == "elsewhere" else 3
        moment[3, column] = moment[column, 3] = -1e6 if spoil == "negative" else float("nan")
    with pytest.raises(EvaluationError, match="statistics are damaged; remove the "):
        inverse_factor(moment)
    with pytest.raises(EvaluationError, match="the statistics are damaged"):
        surgery(torch.ones(8, 32), moment, 1, 16)
    if spoil != "indefinite":
        with pytest.raises(EvaluationError, match="the statistics are damaged"):
            hessian(moment)


def test_poisoned_facts_are_not_believed(pico: Folder, tmp_path: Path) -> None:
    """After a changed number, a turned bit or a cut, all is measured again with a line, and predictions stay."""
    space, planned = prepared(pico("llama"), tmp_path)
    path, said = tmp_path / "facts.json", []
    planned.bank.say = said.append
    evidence = evidence_of(space, planned, path)
    sites = [(site, choice) for site in space.inventory.leaves[:2] for choice in space.options[site.name]]
    first = evidence.losses_alone(sites)
    evidence.finish()
    data = path.read_bytes()
    for seed in range(TRIES):
        content = json.loads(data)
        key = random.Random(seed).choice(sorted(content["facts"]))
        content["facts"][key] = [1e-9, -5.0, float("nan"), "0.1"][seed % 4]
        path.write_text(json.dumps(content))
        assert key not in Facts(path, said.append)
        assert len(said) == 1
        assert "what it held is measured again" in said.pop()
    for seed in range(TRIES):
        path.write_bytes(damaged(data, seed))
        facts = Facts(path, said.append)._known
        assert facts in ({}, json.loads(data)["facts"])
    path.write_text(json.dumps({**json.loads(data), "facts": {}}))
    again = evidence_of(space, planned, path)
    assert again.losses_alone(sites) == first


def test_damaged_sensitivities_are_made_again_by_a_search_and_refused_by_select(
    pico: Folder, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    space, planned = prepared(pico("llama"), tmp_path / "bank")
    said: list[str] = []
    planned.bank.say = said.append
    path = tmp_path / "study" / "sensitivity.json"

    def losses() -> object:
        return stored_losses(path, "single-site", ["texts"], space, planned, planned.bank, SEQUENCES)

    first = losses()
    data = path.read_bytes()
    spoilt = [damaged(data, seed) for seed in range(TRIES)]
    for loss in (-1.0, float("nan"), "1"):
        content = json.loads(data)
        content["losses"][5][2] = loss
        spoilt.append(json.dumps(content).encode())
    for each in spoilt:
        path.write_bytes(each)
        assert losses() == first
        assert read_sensitivity(path).losses
        assert all(line.endswith("it is recomputed") for line in said)
    assert len(said) > TRIES / 2
    make_study(tmp_path / "made", inventory("llama"))
    data = (tmp_path / "made" / "sensitivity.json").read_bytes()
    for each in (data[:-40], data.replace(b"0.", b"1.", 1), b"[]"):
        (tmp_path / "made" / "sensitivity.json").write_bytes(each)
        with pytest.raises(
            StudyError, match=r"sensitivity\.json is damaged \(.*\); run the search again to rewrite it"
        ):
            select_plan(tmp_path / "made", "40%")


def test_damaged_fingerprints_are_made_again(pico: Folder, tmp_path: Path) -> None:
    """Silently: they are read from the weights again."""
    _, planned = prepared(pico("llama"), tmp_path)
    name = f"{SITE}.weight"
    digests = Digests(planned.bank.parameters, tmp_path, pico("llama"))
    right = digests[name]
    digests.write()
    assert digests.path is not None
    data = digests.path.read_bytes()
    for seed in range(TRIES):
        digests.path.write_bytes(damaged(data, seed))
        assert Digests(planned.bank.parameters, tmp_path, pico("llama"))[name] == right
    content = json.loads(data)
    content["sha256_of"][name] = "0" * 64
    digests.path.write_text(json.dumps(content))
    assert Digests(planned.bank.parameters, tmp_path, pico("llama"))[name] == right
