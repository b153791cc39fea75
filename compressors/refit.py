"""A plan compressed in order: each matrix makes up for what the compressed ones before it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from paredown.compressors.bank import Bank, one_thread
from paredown.compressors.calibration import run_base
from paredown.compressors.inputs import Inputs, real_rows
from paredown.compressors.planned import PlannedModel
from paredown.compressors.storage import Tensors, decode_matrix, encode_matrix
from paredown.space.choice import Choice
from paredown.space.interruption import stop_if_asked
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member, Site
from paredown.space.statistics import Statistics

DAMPING = 0.1
"""How firmly a matrix is held to the original's, as a share of the mean second moment of its inputs."""


def is_calibrated(plan: Plan, inventory: Inventory) -> bool:
    """Whether what the plan stores depends on calibration texts."""
    return any(choice.needs for _, choice in plan.decided(inventory))


def ordered_bank(bank: Bank, plan: Plan, *, corrected: bool = True) -> Bank:
    """The bank of a plan's records in order, on the calibration texts of the given one; `in_order` fills it."""
    name = hashlib.sha256(f"{bank.calibration}\n{plan}".encode()).hexdigest()
    return bank.calibrated(None, f"in order {name}" if corrected else f"in order, as they are {name}")


def holds_all(bank: Bank, plan: Plan, inventory: Inventory) -> bool:
    """Whether a bank has every calibrated record of a plan."""
    return all(bank.holds(site, choice) for site, choice in plan.decided(inventory) if choice.needs)


def in_order(planned: PlannedModel, plan: Plan, bank: Bank, tokens: Tensor, mask: Tensor, inputs: Inputs | None) -> Bank:
    """A bank whose calibrated records of the plan were made in the order of the model, in one forward pass.

    When a matrix is about to run, the matrices before it are compressed already. It is calibrated on the inputs x' that they give it,
    and what is compressed is not the original matrix W but the one whose outputs on x' are nearest to those of W on the original's
    inputs x. Then the pass goes on with what it became. Attentions and feed-forward networks whose structure changes stay as the
    given bank has them.

    Args:
        planned: The model in which plans are scored; any plan may be in place afterwards.
        plan: The plan.
        bank: Calibrated independently, on the same tokens.
        tokens: Calibration tokens, shape ``(sequences, length)``, padded on the right.
        mask: 1 where there is a token.
        inputs: Of the original's matrices, on the same tokens; None compresses each matrix as it is: sequential GPTQ, no more.

    Source:
        Frantar et al., 2022, "GPTQ", arXiv 2210.17323: blocks one after the other, on the outputs of those that are quantized
        already. Li et al., 2025, "GPTAQ", arXiv 2504.02692: the target is the original's output on the original's inputs.
    """
    inventory = planned.inventory
    ordered = ordered_bank(bank, plan, corrected=inputs is not None)
    if holds_all(ordered, plan, inventory):
        return ordered
    pending = [(site, choice) for site, choice in plan.decided(inventory) if choice.needs]
    waiting = {site.name for site, _ in pending if site.kind == "linear"}  # as they are until they are about to run
    planned.swap(Plan(tuple((name, choice) for name, choice in plan.entries if name not in waiting)), bank)
    found: dict[str, Tensors] = {}
    done: set[str] = set()
    last: list[tuple[Tensor, Tensor, Statistics]] = []

    def compress(site: Site, member: Member, choice: Choice) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            stop_if_asked()
            if not last or last[0][0] is not given[0]:  # queries, keys and values read the same inputs
                rows = real_rows(given[0], mask)
                last[:] = [(given[0], rows, Statistics(second_moment=rows.T @ rows / len(rows), mean_absolute=rows.abs().mean(0)))]
            _, rows, statistics = last[0]
            if "importance" in choice.needs:
                statistics = replace(statistics, importance=bank.statistics[member.module].importance)
            weight = bank.parameters[f"{member.module}.weight"].float()
            weight = (weight.T if member.transposed else weight).contiguous()
            if inputs is not None:
                weight = nearest_on(weight, inputs[member.module], rows, statistics["second_moment"])
            found[member.module] = encode_matrix(choice, weight, member.dtype, statistics.only(choice.needs))
            decoded = decode_matrix(choice, found[member.module], member.shape)
            parameter: Tensor = module.weight  # type: ignore[assignment]
            parameter.data = decoded.T.contiguous() if member.transposed else decoded
            done.add(member.module)
            if done.issuperset(each.module for each in site.members):  # nothing is held that is whole
                ordered.store(site, choice, _record(site, found, bank))

        return hook

    linear = [(site, choice) for site, choice in pending if site.kind == "linear"]
    members = [(site, member, choice) for site, choice in linear for member in site.members]
    hooks = [planned.module(member.module).register_forward_pre_hook(compress(site, member, choice)) for site, member, choice in members]
    try:
        with torch.no_grad(), one_thread():
            states = run_base(planned.model, tokens, mask, causal=inventory.causal)
            for site, member, choice in members:  # a head is no part of the base model: it reads the final states
                if member.module not in done:
                    compress(site, member, choice)(planned.module(member.module), (states,))
    finally:
        for each in hooks:
            each.remove()
        planned.forget(site for site, _ in linear)
    for site, choice in pending:
        if site.kind != "linear":
            ordered.store(site, choice, bank.tensors(site, choice))
    return ordered


def nearest_on(weight: Tensor, inputs: Tensor, changed: Tensor, second_moment: Tensor) -> Tensor:
    """The matrix whose outputs on changed inputs are nearest to those of ``weight`` on the inputs, damped towards ``weight``.

    Args:
        weight: Shape ``(out_features, in_features)``; not modified.
        inputs: x, shape ``(tokens, in_features)``.
        changed: x', same shape, float32.
        second_moment: Mean of x' x''.
    """
    cross = (inputs.float() - changed.to(inputs.dtype).float()).T @ changed / len(changed)  # rounded alike: what is equal cancels
    damped = second_moment.to(torch.float64, copy=True)
    damped.diagonal().add_(DAMPING * damped.diagonal().mean().clamp(min=1e-30))
    factor = torch.linalg.cholesky(damped)
    del damped  # matrices of this size may be most of what is in memory
    correction = torch.cholesky_solve(cross.T.double(), factor).T.float()  # cross @ inverse
    del factor
    return weight + weight @ correction


def _record(site: Site, found: dict[str, Tensors], bank: Bank) -> Tensors:
    """The tensors of a site, taken out of what was found."""
    tensors: Tensors = {}
    for member in site.members:
        tensors |= {f"{member.module}.{key}": value for key, value in found.pop(member.module).items()}
        if member.bias:
            bias = bank.parameters[f"{member.module}.bias"]
            tensors[f"{member.module}.bias"] = bias.to(getattr(torch, member.bias.dtype)).clone()
    return tensors
