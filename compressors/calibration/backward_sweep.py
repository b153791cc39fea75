"""Inputs of linear layers and gradients of a loss by their outputs, from one backward sweep over some texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from paredown.compressors.original.checkpoint import is_placeholder
from paredown.space.errors import StudyError
from paredown.space.system.interruption import stop_if_asked

Loss = Callable[[Tensor, Tensor], Tensor]
"""Scalar loss of one sequence, from its logits (an encoder's final hidden states) and its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Inputs and output gradients of one linear layer, with all tokens concatenated.

    Attributes:
        inputs: Shape ``(tokens, in_features)``.
        gradients: Gradients of the loss with respect to the outputs; shape ``(tokens, out_features)``.
        lengths: Number of tokens in each sequence.
    """

    inputs: Tensor
    gradients: Tensor
    lengths: tuple[int, ...]


def traces(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], tokens: Tensor, mask: Tensor, loss: Loss, *, causal: bool
) -> dict[str, Trace]:
    """The trace of each module; sequences run one at a time.

    Args:
        model: The original, whole in memory; not modified.
        modules: Linear layers, by the names that their traces get.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        loss: Loss to differentiate.
        causal: Whether the loss reads logits; otherwise it reads final hidden states.

    Raises:
        StudyError: If the model is streamed.
    """
    if any(is_placeholder(parameter) for parameter in model.parameters()):
        raise StudyError(
            "a backward sweep needs the whole model in memory; raise memory, or say sensitivity: single-site"
        )
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_(True)
            found[name] = (inputs[0].detach(), output)

        return hook

    parts: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in modules}
    lengths = tuple(int(present.sum()) for present in mask)
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        for sequence, length in zip(tokens, lengths, strict=True):
            stop_if_asked()
            with torch.enable_grad():
                value = loss(_run(model, sequence[None, :length], causal=causal)[0], sequence[:length])
                gradients = torch.autograd.grad(value, [found[name][1] for name in modules])
            for name, gradient in zip(modules, gradients, strict=True):
                parts[name].append((_rows(found[name][0]), _rows(gradient)))
            found.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: Trace(inputs=torch.cat([x for x, _ in rows]), gradients=torch.cat([g for _, g in rows]), lengths=lengths)
        for name, rows in parts.items()
    }


def _rows(states: Tensor) -> Tensor:
    """States of one sequence, one row per token; some models have flattened them already."""
    return states.reshape(-1, states.shape[-1])


def _run(model: PreTrainedModel, tokens: Tensor, *, causal: bool) -> Tensor:
    if causal:
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
        return logits
    states: Tensor = model.base_model(input_ids=tokens).last_hidden_state
    return states
