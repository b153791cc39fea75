"""Functions that write, verify, load and use compressed models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from paredown.space.plan_file import PlanFile
from paredown.space.system.paths import expanded
from paredown.studies import study_bank

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from paredown.deploy.apply import Applied
    from paredown.deploy.verify import Verified
    from paredown.evaluation import Evaluation


def apply(
    plan: PlanFile | str | Path,
    model: str | Path,
    out: str | Path,
    *,
    check: bool = True,
    bank: str | Path | None = None,
    data: str | list[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Applied, Verified | None]:
    """Writes the compressed model.

    Args:
        plan: The plan file's content, or its path.
        model: The original or a fine-tune of it: a folder or a hub name.
        out: The folder to write. An existing folder is replaced only if paredown wrote it.
        check: Whether to verify the model in a fresh process.
        bank: Folder of compressed sites; by default the bank of the study folder that contains the plan file. Missing
            records are compressed.
        data: Calibration texts; by default those that the plan names.
        say: Called with a line for each damaged file of the bank that is recreated.

    Raises:
        PlanError: If the plan does not fit the model; no weight was read.
        CheckpointError: If the model is missing or incomplete.
        OutputError: If the folder is not ours or cannot be written.
        VerificationError: If the written model differs from the scored one.
    """
    from paredown.compressors.calibration.statistics_folder import again_if_damaged
    from paredown.deploy.apply import apply_plan
    from paredown.deploy.calibrate import ready
    from paredown.deploy.verify import verify as verify_folder

    plan_file = plan if isinstance(plan, PlanFile) else PlanFile.read(expanded(plan))
    folder = expanded(bank) if bank else None if isinstance(plan, PlanFile) else study_bank(expanded(plan))

    def applied() -> tuple[Applied, Verified | None]:
        with ready(plan_file, model, bank=folder, data=[data] if isinstance(data, str) else data, say=say) as sites:
            found = apply_plan(
                plan_file, model, expanded(out), sites.tensors_of, other_texts=sites.other_texts, origin=sites.origin
            )
            return found, verify_folder(expanded(out), model, tensors_of=sites.tensors_of) if check else None

    return again_if_damaged(applied, say)


def verify(
    folder: str | Path,
    original: str | Path,
    *,
    bank: str | Path | None = None,
    data: str | list[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Verified:
    """Checks bytes, keys, logits and cached decoding of a compressed model in a fresh process.

    Args:
        folder: Folder that `apply` wrote.
        original: The model that the plan was applied to.
        bank: Folder of compressed sites; a temporary one by default, filled first if the plan is calibrated.
        data: Calibration texts, if `apply` was given any.
        say: Called with a line for each damaged file of the bank that is recreated.

    Raises:
        VerificationError: If anything differs; the message says what, and by how much.
    """
    from paredown.compressors.calibration.statistics_folder import again_if_damaged
    from paredown.deploy.calibrate import ready
    from paredown.deploy.folder import put_back
    from paredown.deploy.verify import verify as verify_folder

    plan_file, texts = (
        PlanFile.read(put_back(expanded(folder)) / "plan.yaml"),
        [data] if isinstance(data, str) else data,
    )

    def verified() -> Verified:
        with ready(plan_file, original, bank=expanded(bank) if bank else None, data=texts, say=say) as sites:
            return verify_folder(expanded(folder), original, tensors_of=sites.tensors_of)

    return again_if_damaged(verified, say)


def load(folder: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A compressed model as a transformers model.

    Args:
        folder: Folder that `apply` wrote.
        dtype: bfloat16 (the default) uses the fast kernels; float32 computes exactly as the plan was scored.

    Raises:
        CheckpointError: If the folder is not such a model, or is damaged.
    """
    import torch

    from paredown.deploy.load import load as load_folder

    return load_folder(expanded(folder), dtype or torch.bfloat16)


def evaluate(
    model: str | Path, data: str | list[str], *, original: str | Path | None = None, tokens: int = 32768
) -> Evaluation:
    """Perplexity of a model on the held-out part of a text, and its distance from the original if that is given.

    Args:
        model: Folder of a compressed model, or any transformers model.
        data: Text files, folders, ``hub:NAME`` or ``stdlib``.
        original: Model to compare with.
        tokens: Number of tokens to read.

    Raises:
        CheckpointError: If a model cannot be loaded.
        StudyError: If the text is missing or too short.
    """
    from paredown.evaluation import evaluate_folder

    return evaluate_folder(
        str(model), [data] if isinstance(data, str) else data, str(original) if original else None, tokens
    )


def generate(folder: str | Path, prompt: str, *, tokens: int = 100, seed: int | None = None) -> str:
    """The prompt with a continuation.

    Args:
        folder: A compressed model, or any causal transformers model.
        prompt: Start of the text.
        tokens: Largest number of tokens to add.
        seed: Seed of the sampling; None takes the likeliest token each time.

    Raises:
        CheckpointError: If the model cannot be loaded or generates nothing.
    """
    from paredown.evaluation import continuation

    return continuation(expanded(folder), prompt, tokens, seed)
