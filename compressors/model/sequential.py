"""Sequential compression of a plan: each matrix compensates for the errors of the compressed matrices before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.encoding import Tensors, decode_matrix, encode_matrix
from paredown.compressors.model.lockstep import BLOCK, Crew, crew, parts_of, run_in_parts
from paredown.compressors.model.original_inputs import Inputs, real_rows
from paredown.compressors.model.planned_model import PlannedModel
from paredown.space.choice import Choice
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member, Site
from paredown.space.statistics import Statistics
from paredown.space.system.interruption import stop_if_asked

DAMPING = 0.1
"""Damping of a corrected matrix towards the original's, as a share of the mean second moment of its inputs."""


def is_calibrated(plan: Plan, inventory: Inventory) -> bool:
    """Whether any choice of the plan depends on calibration texts."""
    return any(choice.needs for _, choice in plan.decided(inventory))


def ordered_bank(bank: Bank, plan: Plan, *, corrected: bool = True) -> Bank:
    """The bank of a plan's records compressed in order, on the same calibration texts; `in_order` fills it."""
    name = hashlib.sha256(f"{bank.calibration}\n{plan}".encode()).hexdigest()
    return bank.calibrated(None, f"in order {name}" if corrected else f"in order, as they are {name}")


def holds_all(bank: Bank, plan: Plan, inventory: Inventory) -> bool:
    """Whether a bank holds every calibrated record of a plan."""
    return all(bank.holds(site, choice) for site, choice in plan.decided(inventory) if choice.needs)


def in_order(
    planned: PlannedModel, plan: Plan, bank: Bank, tokens: Tensor, mask: Tensor, inputs: Inputs | None, workers: int = 1
) -> Bank:
    """A bank whose calibrated records of the plan are compressed in model order, in one forward pass.

    When a matrix is about to run, the matrices before it are already compressed, and they give it inputs x'. The matrix
    is calibrated on x'. What is compressed is not the original W but the matrix whose outputs on x' are nearest to
    those of W on the original's inputs x. The pass then continues with the compressed matrix.

    Attentions and feed-forward networks whose structure changes are copied from ``bank``. Existing records are put in
    place and not recomputed.

    Args:
        planned: The model in which plans are scored; any plan may be in place afterwards.
        plan: The plan.
        bank: A bank that was calibrated independently, on the same tokens.
        tokens: Calibration tokens, shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        inputs: Inputs of the original's matrices on the same tokens. None compresses each W itself: plain sequential
            GPTQ.
        workers: Number of compute threads; the records do not depend on it.

    Source:
        Frantar et al., 2022, "GPTQ", arXiv 2210.17323: blocks one after the other, each on the outputs of the quantized
        blocks before it. Li et al., 2025, "GPTAQ", arXiv 2504.02692: the target is the original's output on the
        original's inputs.
    """
    inventory = planned.inventory
    ordered = ordered_bank(bank, plan, corrected=inputs is not None)
    missing = [
        (site, choice) for site, choice in plan.decided(inventory) if not ordered.holds(site, choice) and choice.needs
    ]
    for site, choice in missing:
        if site.kind != "linear":
            ordered.store(site, choice, bank.tensors(site, choice))
    # These sites keep the original's matrices until they are about to run.
    waiting = {site.name: (site, choice) for site, choice in missing if site.kind == "linear"}
    if not waiting:
        return ordered
    planned.swap(Plan(tuple((name, choice) for name, choice in plan.entries if name not in waiting)), ordered)
    try:
        with torch.no_grad(), crew(workers) as threads:
            _Refit(planned, bank, ordered, inputs, mask, threads).run(list(waiting.values()), tokens)
    finally:
        planned.forget(site for site, _ in waiting.values())
    return ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A matrix to compress, its site and its choice."""

    site: Site
    member: Member
    choice: Choice


class _Refit:
    """One pass in model order, which compresses matrices as it reaches them."""

    def __init__(
        self, planned: PlannedModel, bank: Bank, ordered: Bank, inputs: Inputs | None, mask: Tensor, threads: Crew
    ) -> None:
        self.planned, self.bank, self.ordered, self.inputs, self.mask, self.threads = (
            planned,
            bank,
            ordered,
            inputs,
            mask,
            threads,
        )
        self.found: dict[str, Tensors] = {}
        self.done: set[str] = set()

    def run(self, pending: Sequence[tuple[Site, Choice]], tokens: Tensor) -> None:
        """Compresses the given linear sites."""
        self.masks = [self.mask[part] for part in parts_of(tokens)]
        files = getattr(self.bank.statistics, "files", {})
        groups: dict[str, list[_Job]] = {}  # matrices that read the same inputs
        for site, choice in pending:
            for member in site.members:
                job = _Job(site=site, member=member, choice=choice)
                groups.setdefault(files.get(member.module, member.module), []).append(job)
        meetings = {
            self.planned.modules[job.member.module]: partial(self._meet, jobs)
            for jobs in groups.values()
            for job in jobs
        }
        states = run_in_parts(self.planned, tokens, self.mask, meetings, self.threads.workers)
        for jobs in groups.values():  # the head is outside the base model: it reads the final states
            self._meet(jobs, states)

    def _meet(self, jobs: Sequence[_Job], given: Sequence[Tensor]) -> None:
        """Compresses all matrices that read these inputs, and puts them in place.

        The first of them to run triggers the others.
        """
        stop_if_asked()
        if jobs[0].member.module in self.done:
            return
        rows = self.threads.map(lambda pair: real_rows(*pair), list(zip(given, self.masks, strict=True)))
        statistics = statistics_of(rows, self.threads)
        weights = [self._weight(job.member) for job in jobs]
        if self.inputs is not None:
            correction = Correction(self.inputs[jobs[0].member.module], rows, statistics["second_moment"], self.threads)
            weights = [correction.of(weight) for weight in weights]
            del correction
        del rows
        known = [self._statistics(job, statistics) for job in jobs]
        encoded = self.threads.map(lambda each: _encoded(*each), list(zip(jobs, weights, known, strict=True)))
        for job, (tensors, decoded) in zip(jobs, encoded, strict=True):
            self._keep(job, tensors, decoded)

    def _weight(self, member: Member) -> Tensor:
        weight = self.bank.parameters[f"{member.module}.weight"].float()
        return (weight.T if member.transposed else weight).contiguous()

    def _statistics(self, job: _Job, statistics: Statistics) -> Statistics:
        if "importance" in job.choice.needs:
            statistics = replace(statistics, importance=self.bank.statistics[job.member.module].importance)
        return statistics.only(job.choice.needs)

    def _keep(self, job: _Job, tensors: Tensors, decoded: Tensor) -> None:
        parameter: Tensor = self.planned.modules[job.member.module].weight  # type: ignore[assignment]
        parameter.data = decoded
        self.found[job.member.module] = tensors
        self.done.add(job.member.module)
        # A complete site is written at once, so that memory does not hold it.
        if self.done.issuperset(each.module for each in job.site.members):
            self.ordered.store(job.site, job.choice, _record(job.site, self.found, self.bank))


def statistics_of(rows: Sequence[Tensor], threads: Crew) -> Statistics:
    """Statistics of inputs, given in parts of shape ``(tokens, in_features)``."""
    count = sum(map(len, rows))
    magnitudes = sum(threads.map(lambda part: part.abs().sum(0), rows), torch.zeros(rows[0].shape[1]))
    return Statistics(second_moment=threads.product(rows, rows).div_(count), mean_absolute=magnitudes / count)


class Correction:
    """Corrects a matrix so that its outputs on changed inputs are nearest to its outputs on the original inputs.

    The correction is a least-squares fit, damped towards the matrix.

    Args:
        inputs: Original inputs x, shape ``(tokens, in_features)``.
        changed: Changed inputs x' in parts, with the same tokens, float32.
        second_moment: Second moment of x'; not modified.
        threads: The crew that computes.
    """

    def __init__(self, inputs: Tensor, changed: Sequence[Tensor], second_moment: Tensor, threads: Crew) -> None:
        self._threads = threads
        pairs = list(zip(inputs.split([len(part) for part in changed]), changed, strict=True))
        # Both are rounded to the same dtype, so that equal inputs cancel.
        differences = threads.map(lambda pair: pair[0].float() - pair[1].to(inputs.dtype).float(), pairs)
        self._cross = threads.product(differences, changed).div_(len(inputs))
        del differences
        damped = second_moment.to(torch.float64, copy=True)
        damped.diagonal().add_(DAMPING * damped.diagonal().mean().clamp(min=1e-30))
        self._factor, fault = torch.linalg.cholesky_ex(damped)
        if int(fault):
            raise EvaluationError(
                "the compressed layers before a matrix give it inputs that are not finite, or too large to be squared"
            )

    def of(self, weight: Tensor) -> Tensor:
        """The corrected matrix for ``weight``, shape ``(out_features, in_features)``; ``weight`` is not modified."""

        def corrected(rows: Tensor) -> Tensor:
            moved: Tensor = torch.cholesky_solve((rows @ self._cross).T.double(), self._factor)
            return rows + moved.T.float()

        return torch.cat(self._threads.map(corrected, weight.split(BLOCK)))


def _encoded(job: _Job, weight: Tensor, statistics: Statistics) -> tuple[Tensors, Tensor]:
    """The tensors that store a matrix, and the parameter that they decode to."""
    tensors = encode_matrix(job.choice, weight, job.member.dtype, statistics)
    decoded = decode_matrix(job.choice, tensors, job.member.shape)
    return tensors, decoded.T.contiguous() if job.member.transposed else decoded


def _record(site: Site, found: dict[str, Tensors], bank: Bank) -> Tensors:
    """The tensors of a site's record; its entries are removed from ``found``."""
    tensors: Tensors = {}
    for member in site.members:
        tensors |= {f"{member.module}.{key}": value for key, value in found.pop(member.module).items()}
        if member.bias:
            bias = bank.parameters[f"{member.module}.bias"]
            tensors[f"{member.module}.bias"] = bias.to(getattr(torch, member.bias.dtype)).clone()
    return tensors
