"""Encoding and decoding of matrices and sites, the same way for every method and composition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from paredown.space.choice import Choice, Shape, matrix_choice
from paredown.space.layouts import choice_members, inner
from paredown.space.site import Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistics, StatisticsOf
from paredown.space.structure_choice import Structure, StructureChoice

Tensors = dict[str, Tensor]


def encode_matrix(choice: Choice, weight: Tensor, dtype: str, statistics: Statistics = NO_STATISTICS) -> Tensors:
    """The tensors that store a float32 matrix under a choice, named as in `matrix_layout`."""
    own, parts = matrix_choice(choice).encode(weight, statistics)
    tensors = dict(own)
    for name, part in parts.items():
        if choice.then:
            prefix = f"{name}." if name != "weight" else ""
            stored = encode_matrix(choice.then, part.matrix.contiguous(), dtype, part.statistics)
            tensors |= {prefix + key: value for key, value in stored.items()}
        else:
            tensors[name] = part.matrix.to(getattr(torch, dtype))
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def decode_matrix(choice: Choice, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
    """The float32 matrix that stored tensors decode to; shape ``(out_features, in_features)``."""
    step = matrix_choice(choice)
    parts: Tensors = {}
    for name, part in step.parts(shape).items():
        if choice.then:
            prefix = f"{name}." if name != "weight" else ""
            stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            parts[name] = decode_matrix(choice.then, stored, part)
        else:
            parts[name] = tensors[name].float()
    return step.decode(tensors, parts, shape)


def encode_site(
    site: Site, choice: Choice, parameters: Mapping[str, Tensor], statistics: StatisticsOf | None = None
) -> Tensors:
    """The tensors that store a site under a choice, named as in `site_layout`, with any norm that the choice changes.

    Args:
        site: The site.
        choice: The choice.
        parameters: The original's parameters by name; not modified.
        statistics: Statistics by module name; only those that the choice needs are read.

    Raises:
        PlanError: If a statistic that the choice needs is missing.
    """
    members = choice_members(site, choice)
    if not members:
        return {}
    needs = choice.needs
    known = [_statistics(member, statistics).only(needs) if needs else NO_STATISTICS for member in site.members]
    matrices = [_matrix(member, parameters) for member in site.members]
    biases = [parameters[f"{member.module}.bias"].float() if member.bias else None for member in site.members]
    tensors: Tensors = {}
    if isinstance(choice, StructureChoice):
        rest = {name: parameters[name].float() for name in norm_names(site) if name in parameters}
        changed = choice.restructure(site, Structure(matrices=matrices, biases=biases, statistics=known, rest=rest))
        matrices, biases, known = list(changed.matrices), list(changed.biases), list(changed.statistics)
        tensors = {name: tensor.to(getattr(torch, site.norm[name].dtype)) for name, tensor in changed.rest.items()}
    step = inner(site, choice)
    for (member, _), matrix, bias, found in zip(members, matrices, biases, known, strict=True):
        stored = encode_matrix(step, matrix.contiguous(), member.dtype, found.only(step.needs))
        tensors |= {f"{member.module}.{key}": value for key, value in stored.items()}
        if bias is not None and member.bias:
            tensors[f"{member.module}.bias"] = bias.to(getattr(torch, member.bias.dtype)).clone()
    return tensors


def decode_site(site: Site, choice: Choice, tensors: Mapping[str, Tensor]) -> Tensors:
    """The float32 parameters that a site computes with, by name, oriented as in the original's modules.

    For an attention or feed-forward network that is left out, the last matrix and its bias are zero, so that it adds
    nothing.
    """
    members = choice_members(site, choice)
    parameters: Tensors = {name: tensors[name].float() for name in norm_names(site) if name in tensors}
    for member, shape in members:
        prefix = f"{member.module}."
        stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        weight = decode_matrix(inner(site, choice), stored, shape)
        parameters[f"{member.module}.weight"] = weight.T.contiguous() if member.transposed else weight
        if member.bias:
            parameters[f"{member.module}.bias"] = stored["bias"].float()
    if not members and site.structured:
        reader = site.members[-1]
        parameters[f"{reader.module}.weight"] = torch.zeros(reader.shape[::-1] if reader.transposed else reader.shape)
        if reader.bias:
            parameters[f"{reader.module}.bias"] = torch.zeros(reader.shape[0])
    return parameters


def norm_names(site: Site) -> list[str]:
    """Names of the norm parameters that a site may change."""
    return list(site.norm)


def _statistics(member: Member, statistics: StatisticsOf | None) -> Statistics:
    return statistics[member.module] if statistics and member.module in statistics else NO_STATISTICS


def _matrix(member: Member, parameters: Mapping[str, Tensor]) -> Tensor:
    weight = parameters[f"{member.module}.weight"].float()
    return (weight.T if member.transposed else weight).contiguous()
