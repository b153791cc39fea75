"""A matrix or a site compressed, and read back: one law for every method and composition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from paredown.space.choice import KEEP, Choice, Shape, choice_members
from paredown.space.site import Member, Site

Tensors = dict[str, Tensor]


def encode_matrix(choice: Choice, weight: Tensor, dtype: str) -> Tensors:
    """The tensors that store a float32 matrix under a choice, named as `matrix_layout` predicts them."""
    own, parts = choice.encode(weight)
    tensors = dict(own)
    for name, part in parts.items():
        if choice.then:
            prefix = f"{name}." if name != "weight" else ""
            tensors |= {prefix + key: value for key, value in encode_matrix(choice.then, part.contiguous(), dtype).items()}
        else:
            tensors[name] = part.to(getattr(torch, dtype))
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def decode_matrix(choice: Choice, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """The float32 matrix ``(out_features, in_features)`` that stored tensors stand for."""
    parts: Tensors = {}
    for name, part in choice.parts(shape).items():
        if choice.then:
            prefix = f"{name}." if name != "weight" else ""
            inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            parts[name] = decode_matrix(choice.then, inner, part)
        else:
            parts[name] = tensors[name].float()
    return choice.decode(tensors, parts, shape)


def encode_site(site: Site, choice: Choice, parameters: Mapping[str, Tensor]) -> Tensors:
    """The tensors that store a site under a choice, named as `site_layout` predicts them; ``parameters`` are not modified."""
    matrices = [_matrix(member, parameters) for member in site.members]
    biases = [parameters[f"{m.module}.bias"] if m.bias else None for m in site.members]
    inner = choice
    if site.kind == "ffn":
        stay = choice.neurons(matrices)
        inner = choice.then or KEEP
        matrices = [*(matrix[stay] for matrix in matrices[:-1]), matrices[-1][:, stay]]
        biases = [*(bias if bias is None else bias[stay] for bias in biases[:-1]), biases[-1]]
    tensors: Tensors = {}
    for member, matrix, bias in zip(site.members, matrices, biases, strict=True) if site.kind != "block" else ():
        tensors |= {f"{member.module}.{key}": value for key, value in encode_matrix(inner, matrix.contiguous(), member.dtype).items()}
        if bias is not None and member.bias:
            tensors[f"{member.module}.bias"] = bias.to(getattr(torch, member.bias.dtype)).clone()
    return tensors


def decode_site(site: Site, choice: Choice, tensors: Mapping[str, Tensor]) -> Tensors:
    """The float32 parameters by name that a site computes with, oriented as the original's modules hold them."""
    inner = (choice.then or KEEP) if site.kind == "ffn" else choice
    parameters: Tensors = {}
    for member, shape in choice_members(site, choice):
        prefix = f"{member.module}."
        stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        weight = decode_matrix(inner, stored, shape)
        parameters[f"{member.module}.weight"] = weight.T.contiguous() if member.transposed else weight
        if member.bias:
            parameters[f"{member.module}.bias"] = stored["bias"].float()
    return parameters


def _matrix(member: Member, parameters: Mapping[str, Tensor]) -> Tensor:
    weight = parameters[f"{member.module}.weight"].float()
    return (weight.T if member.transposed else weight).contiguous()
