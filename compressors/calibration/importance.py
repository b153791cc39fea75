"""Importance of each weight's squared error, from one backward sweep over the calibration tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.calibration.collect import collect
from paredown.compressors.calibration.statistics_folder import IMPORTANCE, ImportanceFile, StatisticsFolder
from paredown.compressors.original.checkpoint import is_placeholder
from paredown.compressors.tensor_files.tensor_file import write_tensors
from paredown.space.errors import StudyError
from paredown.space.site import Inventory, Member
from paredown.space.statistics import Statistic
from paredown.space.system.files import write_json
from paredown.space.system.interruption import stop_if_asked


def statistics_for(
    model: PreTrainedModel,
    inventory: Inventory,
    tokens: Tensor,
    mask: Tensor,
    folder: Path,
    needs: frozenset[Statistic],
) -> StatisticsFolder:
    """Statistics of the calibration tokens, including the importance of weights if ``needs`` names it.

    Raises:
        StudyError: If importance is needed and the model is an encoder or not entirely in memory.
    """
    if "importance" not in needs:
        return collect(model, inventory, tokens, mask, folder)
    check_importance(inventory, whole=not any(is_placeholder(parameter) for parameter in model.parameters()))
    collect(model, inventory, tokens, mask, folder)
    return collect_importance(model, inventory, tokens, mask, folder)


def check_importance(inventory: Inventory, *, whole: bool) -> None:
    """Checks that the importance of a model's weights can be collected.

    Args:
        inventory: Sites of the model.
        whole: Whether the whole model is in memory.

    Raises:
        StudyError: If the model is an encoder, or not entirely in memory.
    """
    if not inventory.causal:
        raise StudyError(
            "an encoder has no next-token loss to take the gradient of; leave out the choices that need importance"
        )
    if not whole:
        raise StudyError(
            "the importance of weights needs the whole model in memory; raise memory, or leave out the choices that "
            "need importance"
        )


def collect_importance(
    model: PreTrainedModel,
    inventory: Inventory,
    tokens: Tensor,
    mask: Tensor,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> StatisticsFolder:
    """Adds the diagonal of the empirical Fisher information to the statistics in a folder.

    For each weight of the linear sites, this is the squared gradient of a sequence's negative log-likelihood, summed
    over the sequences, per predicted token. Sequences run one at a time, so memory holds one gradient and one sum
    beside the model.

    Args:
        model: The original, whole in memory; not modified.
        inventory: Its sites.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        folder: Folder that `collect` wrote; only read if it holds the importance already.
        progress: Called with the number of finished sequences and the number of sequences.

    Raises:
        StudyError: If the model is not a causal language model.

    Source:
        Kim et al., 2023, "SqueezeLLM: Dense-and-Sparse Quantization", arXiv 2306.07629: the empirical Fisher
        information as the weight of squared errors.
    """
    check_importance(inventory, whole=True)
    if (folder / IMPORTANCE).is_file():
        return StatisticsFolder(folder)
    members = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
    weights = [model.get_parameter(f"{member.module}.weight") for member in members]
    sums = [torch.zeros(weight.shape) for weight in weights]
    asked = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for done, (sequence, present) in enumerate(zip(tokens, mask, strict=True)):
            stop_if_asked()
            length = int(present.sum())
            gradients = torch.autograd.grad(_surprise(model, sequence[None, :length]), weights)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient.float().square()
            progress(done + 1, len(tokens))
    finally:
        for weight, before in zip(weights, asked, strict=True):
            weight.requires_grad_(before)
    _write(folder, members, sums, int((mask.sum(1) - 1).sum()))
    return StatisticsFolder(folder)


def _write(folder: Path, members: Sequence[Member], sums: Sequence[Tensor], predicted: int) -> None:
    """Writes the importance of matrices: one file for each, and the index."""
    files = {
        member.module: f"importance-{hashlib.sha256(member.module.encode()).hexdigest()[:16]}.safetensors"
        for member in members
    }
    for member, total in zip(members, sums, strict=True):
        oriented = total.T if member.transposed else total
        write_tensors(
            folder / files[member.module], {"importance": (oriented / predicted).contiguous()}, bank=folder.parent
        )
    write_json(folder / IMPORTANCE, ImportanceFile(files=files).model_dump())


def _surprise(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Summed negative log-likelihood of all tokens but the first [nats]."""
    with torch.enable_grad():
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
        return nn.functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:], reduction="sum")
