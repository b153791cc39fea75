"""Verification: what is written is what was predicted, in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paredown.deploy.load import load
from paredown.deploy.verify import Verified, _check, _difference, verify
from paredown.deploy.verify_process import loaded
from paredown.space.errors import CheckpointError, VerificationError
from paredown.space.plan_file import PlanFile
from shared.written import applied

Folder = Callable[[str], Path]


@pytest.mark.parametrize("target", ["paredown", "transformers"])
def test_a_fresh_process_verifies(pico: Folder, tmp_path: Path, target: str) -> None:
    result, plan, inventory = applied(pico("llama"), tmp_path / "out", target)
    verified = verify(result.folder, pico("llama"))
    assert verified.size_bytes == result.size_bytes
    assert verified.difference < 1e-5
    assert verified.incremental_difference is not None and verified.incremental_difference < 1e-5


@pytest.mark.parametrize("digests", [True, False])
def test_a_changed_scale_does_not_verify(digests: bool, pico: Folder, tmp_path: Path) -> None:
    """By the digests of what was written; by the logits where the plan is of before there were any."""
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    if not digests:
        PlanFile.read(result.folder / "plan.yaml").model_copy(update={"records": None}).write(
            result.folder / "plan.yaml"
        )
    path = result.folder / "model.paredown.safetensors"
    stored = load_file(path)
    scale = next(name for name in stored if "mlp" in name and name.endswith("weight_scale"))
    save_file(stored | {scale: stored[scale] * 1.5}, path)
    with pytest.raises(
        VerificationError, match="are not those that were written" if digests else "logits in float32 differ"
    ):
        verify(result.folder, pico("llama"))


@pytest.mark.parametrize("name", ["difference", "incremental_difference", "fast_difference"])
def test_what_is_no_number_does_not_verify(name: str, tmp_path: Path) -> None:
    """A model that gives NaN is not near the scored one."""
    differences = {"difference": 0.0, "incremental_difference": 0.0, "fast_difference": 0.0}
    sizes = {"folder": tmp_path, "size_bytes": 1, "header_bytes": 1, "tokens": 1}
    _check(Verified(**sizes, **differences), tolerance=1e-4)
    with pytest.raises(VerificationError, match="by nan of the largest"):
        _check(Verified(**sizes, **{**differences, name: float("nan")}), tolerance=1e-4)


def test_a_missing_tensor_neither_verifies_nor_loads(pico: Folder, tmp_path: Path) -> None:
    result, _, _ = applied(pico("llama"), tmp_path / "out", "paredown", drop=None)
    path = result.folder / "model.paredown.safetensors"
    stored = load_file(path)
    save_file({name: value for name, value in stored.items() if name != "model.norm.weight"}, path)
    with pytest.raises(VerificationError, match="first difference: model.norm.weight is missing"):
        verify(result.folder, pico("llama"))
    with pytest.raises(CheckpointError, match="lacks model.norm.weight"):
        load(result.folder)


def test_no_difference_from_nothing_is_no_difference() -> None:
    """Where every logit is zero, in the model that was scored and in the one that was written."""
    zeros = torch.zeros(2, 3)
    assert _difference(zeros, zeros) == 0
    assert _difference(zeros + 1, zeros) > 1


def test_the_module_of_an_engine_may_hold_dataclasses(tmp_path: Path) -> None:
    """Which ask for their module by its name while they are made."""
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    b: int\n"
    (tmp_path / "mine.py").write_text(text)
    assert loaded(str(tmp_path / "mine.py")).A(3).b == 3
