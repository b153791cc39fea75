"""What measured numbers depend on beside texts and choices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.collect import calibration_key
from paredown.compressors.original import weights_digest as digests
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.compressors.original.origin import Origin
from paredown.compressors.original.weights_digest import weights_sha256
from paredown.search.workbench.inputs import differences
from paredown.space.choice import parse_choice
from paredown.space.site import Inventory

Folder = Callable[[str], Path]


def edited(model: Path, folder: Path, **changes: object) -> Path:
    """A copy of a model folder with other values in its configuration."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def origin(folder: Path, bank: Path | None = None) -> Origin:
    return Origin.of(folder, config_of(folder), bank)


def test_what_changes_numbers_is_named_and_what_does_not_is_left_out(
    pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of the configuration, a library and the weights count; who wrote the file, or where, does not."""
    model = pico("llama")
    first = origin(model)
    rope = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert differences(first.named(), origin(edited(model, tmp_path / "rope", **rope)).named()) == [
        "rope_parameters.rope_theta 10000.0 -> 500000.0"
    ]
    assert differences(first.named(), origin(edited(model, tmp_path / "norm", rms_norm_eps=1e-5)).named()) == [
        "rms_norm_eps 1e-06 -> 1e-05"
    ]
    cosmetic = {
        "transformers_version": "4.0.0",
        "_name_or_path": "elsewhere",
        "use_cache": False,
        "id2label": {"0": "no", "1": "yes"},
    }
    assert (
        origin(edited(model, tmp_path / "cosmetic", **cosmetic, attention_bias=False)) == first
    )  # the default, written out
    monkeypatch.setattr(
        "paredown.compressors.original.origin.version", lambda name: "9.9.9" if name == "torch" else "1.0.0"
    )
    assert f"torch {first.versions['torch']} -> 9.9.9" in differences(first.named(), origin(model).named())
    assert any(line.startswith("weights ") for line in differences(first.named(), origin(pico("qwen2")).named()))


def test_calibrated_records_follow_the_origin_and_data_free_ones_the_weights(
    pico: Folder, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    model = load_original(pico("llama"))
    tokens = torch.arange(32).view(2, 16)
    keys = [
        calibration_key(tokens, torch.ones_like(tokens), origin(folder).sha256())
        for folder in (pico("llama"), edited(pico("llama"), tmp_path / "other", rms_norm_eps=1e-5))
    ]
    assert keys[0] != keys[1]
    site = inventory("llama")["model.layers.0.mlp.up_proj"]
    parameters = {name: tensor.detach() for name, tensor in parameters_of(model).items()}
    banks = [Bank(tmp_path / "bank", parameters, None, key) for key in keys]
    for text, same in (("quantize bits=4", True), ("quantize bits=4 algorithm=gptq", False)):
        paths = {bank.path(site, parse_choice(text)) for bank in banks}
        assert len(paths) == (1 if same else 2)


def test_weights_are_read_once_as_long_as_their_files_stay(
    pico: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size, time and inode tell whether a file changed.

    A file written since is read again, even if its size and time are the old ones.
    """
    model = edited(pico("llama"), tmp_path / "model")
    file = model / "model.safetensors"
    reads: list[Path] = []
    read = digests._files_sha256
    monkeypatch.setattr(digests, "_files_sha256", lambda folder: reads.append(folder) or read(folder))
    first = weights_sha256(model, tmp_path / "bank")
    assert weights_sha256(model, tmp_path / "bank") == first
    assert len(reads) == 1
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights_sha256(model, tmp_path / "bank") != first
    assert weights_sha256(model) != first
    assert len(reads) == 3
