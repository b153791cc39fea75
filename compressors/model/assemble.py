"""Builds the transformers model that computes with the stored tensors of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from paredown.compressors.bank.encoding import decode_matrix
from paredown.compressors.model.dropped_parts import POSITION, leave_out, renumbering
from paredown.compressors.model.kernels import kernel_of, runnable
from paredown.compressors.original.checkpoint import model_class, parameters_of, skeleton
from paredown.compressors.original.find_sites import blocks_of
from paredown.space.choice import Choice, Shape
from paredown.space.errors import CheckpointError, PlanError
from paredown.space.layouts import choice_members, inner
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member

__all__ = ["assemble", "kernel_of", "reduced_config", "renumbering", "resident_bytes", "runnable"]


def assemble(
    config: Any, inventory: Inventory, plan: Plan, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The deployed model. bfloat16 uses the fast kernels; float32 computes exactly.

    Args:
        config: Configuration of the original; not modified.
        inventory: Sites of the original.
        plan: The plan that the tensors store.
        tensors: The tensors that ``plan.layout(inventory)`` names, under the original's names; not modified.
        dtype: Dtype of the activations and of everything that is not compressed.

    Raises:
        CheckpointError: If a tensor is missing or unexpected.
        PlanError: If the remaining blocks cannot take the positions of the dropped ones.
    """
    _check_names(plan.layout(inventory).keys(), tensors.keys())
    dropped = plan.dropped(inventory)
    model = _empty(reduced_config(config, inventory, dropped), dtype)
    rename = renumbering(inventory, dropped)
    leave_out(model, config, inventory, plan)
    parameters = parameters_of(model)
    filled = set()
    for site, choice in plan.decided(inventory):
        step = inner(site, choice)
        for member, shape in choice_members(site, choice):
            name, prefix = rename(member.module), f"{member.module}."
            stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            bias = stored.pop("bias") if member.bias else None
            filled |= {f"{name}.weight", f"{name}.bias"}
            if site.kind == "embedding" or member.tied or kernel_of(step, shape, dtype) == "dense":
                _fill(model.get_submodule(name), step, stored, shape, bias, member)
            else:
                model.set_submodule(name, runnable(step, stored, shape, bias, dtype))
    for name, value in tensors.items():
        if (new := rename(name)) in parameters and new not in filled:
            parameters[new].data = value.to(parameters[new].dtype).clone()
            filled.add(new)
    _check_names(parameters.keys(), filled & parameters.keys())
    model.requires_grad_(False)
    model.train(False)
    return model


def resident_bytes(module: nn.Module) -> int:
    """Memory of a module's parameters and buffers [bytes]; shared storage counts once."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in [*module.parameters(), *module.buffers()]
    }
    return sum(storages.values())


def reduced_config(config: Any, inventory: Inventory, dropped: Sequence[int]) -> Any:
    """The configuration without the dropped blocks; a new object if any are dropped, else ``config`` itself.

    Raises:
        PlanError: If a block would compute something else at its new position.
    """
    if not dropped:
        return config
    blocks = [site.block for site in inventory.parents if site.kind == "block"]
    kept = [index for index in range(len(blocks)) if index not in dropped]
    values = config.to_dict()
    for key, value in values.items():
        if isinstance(value, list) and len(value) == len(blocks) and "layer" in key:
            values[key] = [value[index] for index in kept]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    changed = type(config).from_dict(values)
    if changed.num_hidden_layers != len(kept) or getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise PlanError(
            f"blocks of {inventory.architecture} depend on their position, so none can be dropped; "
            "remove 'drop' from the plan"
        )
    before, after = (blocks_of(skeleton(each))[1] for each in (config, changed))
    for new, old in enumerate(kept):
        if len(after) != len(kept) or _nature(after[new]) != _nature(before[old]):
            raise PlanError(
                f"block {old} of {inventory.architecture} would compute something else at position {new}; "
                "drop other blocks, or none"
            )
    return changed


def _nature(block: nn.Module) -> list[tuple[Any, ...]]:
    """Parameter shapes, module classes and plain attributes of a block, without its position and its weights."""
    nature: list[tuple[Any, ...]] = [(name, tuple(parameter.shape)) for name, parameter in block.named_parameters()]
    for name, module in block.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str)) and k not in POSITION}
        nature.append((name, type(module).__name__, sorted(plain.items())))
    return nature


def _empty(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its buffers computed and its parameters allocated but not initialised.

    The system commits memory pages only as they are filled.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            model: PreTrainedModel = model_class(config)(config)
    finally:
        torch.set_default_dtype(before)
    model.tie_weights()
    return model


def _fill(
    module: Any, choice: Choice, stored: Mapping[str, Tensor], shape: Shape, bias: Tensor | None, member: Member
) -> None:
    """Puts the decoded matrix into the original's own module, which becomes narrower if rows or columns were removed.

    Tied modules share the parameter and change with it.
    """
    weight = decode_matrix(choice, stored, shape)
    weight = weight.T if member.transposed else weight
    module.weight.data = weight.to(module.weight.dtype).clone(memory_format=torch.contiguous_format)
    if bias is not None:
        module.bias.data = bias.to(module.bias.dtype).clone()
    for attribute, size in (("out_features", shape[0]), ("in_features", shape[1]), ("nf", shape[0]), ("nx", shape[1])):
        if member.class_name != "Embedding" and hasattr(module, attribute):
            setattr(module, attribute, size)


def _check_names(expected: Any, found: Any) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        faults = [
            f"{word} {', '.join(names[:3])}"
            for word, names in (("lacks", missing), ("has unexpected", unexpected))
            if names
        ]
        raise CheckpointError(f"the compressed model {' and '.join(faults)}; apply the plan again")
