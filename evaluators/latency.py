"""Latency of the deployed model, predicted from a table of kernel times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.assemble import assemble
from paredown.compressors.model.kernels import kernel_of
from paredown.evaluators.door import finite
from paredown.evaluators.timing import Running, expected_seconds, time_kernel, time_models
from paredown.space.choice import KEEP, Choice, Shape
from paredown.space.errors import StudyError
from paredown.space.layouts import choice_members, inner
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.space import Space
from paredown.space.system.files import write_atomically
from paredown.space.system.interruption import stop_if_asked
from paredown.space.targets.target import Target

REMEDY = "remove the file, or leave `latency` out of the study, to measure a new table"
"""Remedy in messages about an unusable latency table."""


class LatencyTable(BaseModel):
    """Kernel times of one machine at each shape, and the overhead of a model beyond its kernels.

    The time of a model is ``scale`` times the sum of its kernels plus ``per_block_ms`` for each of its blocks. Both are
    fitted to models that were built and timed, because the raw sum of kernels is well below the measured time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    device: str
    threads: int
    dtype: str
    kernels: dict[str, tuple[float, float]] = Field(
        description="time of one decoded row, and per row of a prompt [ms], by kernel and shape"
    )
    scale: tuple[float, float]
    per_block_ms: tuple[float, float]
    calibration: dict[str, dict[str, float]] = Field(
        description="measured and fitted times of the models that were built [ms]"
    )

    def predict(self, inventory: Inventory, plan: Plan) -> tuple[float | None, float] | None:
        """Predicted times per decoded token (None for encoders) and per prompt token under a plan [ms].

        None if the table lacks one of the plan's kernels.
        """
        kernels = _kernels(inventory, plan, getattr(torch, self.dtype))
        if not self.kernels.keys() >= set(kernels):
            return None
        blocks = sum(s.kind == "block" for s in inventory.parents) - len(plan.dropped(inventory))
        decode, prefill = np.array(self.scale) * self._sums(kernels) + np.array(self.per_block_ms) * blocks
        return finite(decode, "predicted decode time") if inventory.causal else None, finite(
            prefill, "predicted prefill time"
        )

    def site_ms(self, site: Site, choice: Choice) -> tuple[float, float]:
        """A site's share of the times per decoded token and per prompt token under a choice [ms].

        Raises:
            StudyError: If the table lacks a kernel: it was made for another model or space.
        """
        kernels = [name for name, _, _ in _site_kernels(site, choice, getattr(torch, self.dtype))]
        if lacking := [kernel for kernel in kernels if kernel not in self.kernels]:
            raise StudyError(f"the latency table lacks {lacking[0]}; {REMEDY}")
        sums = self._sums(kernels)
        return self.scale[0] * float(sums[0]), self.scale[1] * float(sums[1])

    def lacking(self, space: Space, beside: Sequence[Plan] = ()) -> list[str]:
        """Kernels of a space, and of further plans, that the table lacks."""
        pairs = _timed(space, beside)
        names = {
            name for site, choice in pairs for name, _, _ in _site_kernels(site, choice, getattr(torch, self.dtype))
        }
        return sorted(names - self.kernels.keys())

    def _sums(self, kernels: Sequence[str]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = (
            np.array([self.kernels[kernel] for kernel in kernels], dtype=np.float64).reshape(-1, 2).sum(0)
        )
        return sums

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """The table in a file.

        Raises:
            StudyError: If the file is not a table.
        """
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise StudyError(f"{path} is not a latency table ({str(error).splitlines()[0]}); {REMEDY}") from None

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        write_atomically(path, self.model_dump_json(indent=1))


Build = Callable[[Plan], Running]


def measure_table(
    space: Space,
    build: Build,
    dtype: torch.dtype,
    device: str,
    beside: Sequence[Plan] = (),
    check: Callable[[], None] = lambda: None,
) -> LatencyTable:
    """A table with every kernel that the space can use, calibrated on models that are built and timed.

    Args:
        space: Sites and options.
        build: Builds the deployed model of a plan.
        dtype: Dtype of the activations.
        device: Name of the machine.
        beside: Further plans, such as uniform ones, whose choices need not be options of the space.
        check: Called before each timing; an exception that it raises ends the measurement.
    """
    inventory = space.inventory
    kernels: dict[str, tuple[float, float]] = {}
    for name, (step, shape) in kernels_timed(space, dtype, beside).items():
        stop_if_asked()
        check()
        kernels[name] = time_kernel(step, shape, dtype)
    plans = {name: deployed_plan(plan, inventory, space.target) for name, plan in _calibration_plans(space).items()}
    rows, measured = [], []
    for plan in plans.values():
        check()
        timing = time_models({"model": build(plan)})["model"]
        sums = np.sum([kernels[name] for name in _kernels(inventory, plan, dtype)], axis=0)
        blocks = sum(s.kind == "block" for s in inventory.parents) - len(plan.dropped(inventory))
        rows.append((sums, blocks))
        measured.append((timing.decode_ms or timing.prefill_ms, timing.prefill_ms))
    scale, per_block = zip(
        *(_fit([r[0][i] for r in rows], [r[1] for r in rows], [m[i] for m in measured]) for i in (0, 1)), strict=True
    )
    table = LatencyTable(
        device=device, threads=1, dtype=str(dtype).removeprefix("torch."), kernels=kernels,
        scale=scale, per_block_ms=per_block, calibration={},
    )  # fmt: skip
    calibration = {}
    for (name, plan), (decode, prefill) in zip(plans.items(), measured, strict=True):
        fitted = table.predict(inventory, plan)
        assert fitted is not None  # every kernel was timed
        calibration[name] = {"prefill_ms": prefill, "prefill_fitted_ms": fitted[1]}
        if fitted[0] is not None:
            calibration[name] |= {"decode_ms": decode, "decode_fitted_ms": fitted[0]}
    return table.model_copy(update={"calibration": calibration})


def deployed_plan(plan: Plan, inventory: Inventory, target: Target) -> Plan:
    """The part of a plan that changes how the target computes.

    Where matrices are dense again after loading, only dropped blocks remain.
    """
    if not target.decompresses:
        return plan
    blocks = {site.name for site in inventory.parents if site.kind == "block"}
    return Plan(tuple((site, choice) for site, choice in plan.entries if site in blocks))


def _timed(space: Space, beside: Sequence[Plan]) -> Iterator[tuple[Site, Choice]]:
    """Each site with every choice that the target may run there: options, ``keep``, and the choices of ``beside``."""
    inventory, dense = space.inventory, space.target.decompresses
    for site in inventory.sites:
        if site.kind in ("linear", "embedding"):
            yield site, KEEP
        for choice in space.options[site.name] if site.kind == "block" or not dense else ():
            yield site, choice
    for plan in beside:
        yield from deployed_plan(plan, inventory, space.target).decided(inventory)


def deployed(bank: Bank, config: Any, inventory: Inventory, plan: Plan, dtype: torch.dtype) -> PreTrainedModel:
    """The model that computes with the stored tensors of a plan."""
    tensors = {}
    for name, spec in plan.layout(inventory).items():
        if name in bank.parameters and name not in tensors:
            tensors[name] = bank.parameters[name].to(getattr(torch, spec.dtype))
    for site, choice in plan.decided(inventory):
        if site.kind != "block":
            tensors |= bank.tensors(site, choice)
    return assemble(config, inventory, plan, tensors, dtype)


def kernels_timed(space: Space, dtype: torch.dtype, beside: Sequence[Plan] = ()) -> dict[str, tuple[Choice, Shape]]:
    """The kernels that `measure_table` times by name, each with the first choice that runs it and its shape."""
    found: dict[str, tuple[Choice, Shape]] = {}
    for site, choice in _timed(space, beside):
        for name, step, shape in _site_kernels(site, choice, dtype):
            found.setdefault(name, (step, shape))
    return found


def timing_seconds(table: LatencyTable, models: int) -> float:
    """Estimated duration of `time_models` [s], from the table's calibration models; excludes building the models."""
    prefill = max((fitted["prefill_ms"] for fitted in table.calibration.values()), default=0.0)
    decode = max((fitted.get("decode_ms", 0.0) for fitted in table.calibration.values()), default=0.0)
    return expected_seconds(models, prefill, decode)


def _site_kernels(site: Site, choice: Choice, dtype: torch.dtype) -> Iterator[tuple[str, Choice, Shape]]:
    """Names, choices and shapes of the kernels of a site under a choice.

    An embedding counts only if it is tied, since it then computes the logits.
    """
    step = inner(site, choice)
    for member, shape in choice_members(site, choice):
        if site.kind == "embedding":
            if member.tied:
                yield f"dense {shape[0]}x{shape[1]}", KEEP, shape
        else:
            kernel = "dense" if member.tied else kernel_of(step, shape, dtype)
            yield f"{kernel} {shape[0]}x{shape[1]}", KEEP if kernel == "dense" else step, shape


def _kernels(inventory: Inventory, plan: Plan, dtype: torch.dtype) -> list[str]:
    return [name for site, choice in plan.decided(inventory) for name, _, _ in _site_kernels(site, choice, dtype)]


def _calibration_plans(space: Space) -> dict[str, Plan]:
    """Plans that span the kernels: all kept, few bits, many bits and, if allowed, all kept with some blocks dropped."""
    inventory = space.inventory
    plans = {"kept": Plan()}
    for name, wanted in (("few bits", (4, 3, 2)), ("many bits", (8, 6, 5))):
        choices = {}
        for site in inventory.leaves:
            options = [
                c for c in space.options[site.name] if getattr(c, "bits", None) in wanted and c.method == "quantize"
            ]
            if options and site.kind == "linear":
                choices[site.name] = min(options, key=lambda c: _preference(c, wanted, channel=name == "few bits"))
        plans[name] = Plan.of(inventory, choices)
    drops = [
        (site.name, choice) for site in inventory.parents if site.kind == "block" for choice in space.options[site.name]
    ]
    if drops and space.max_drops:
        plans["kept, blocks dropped"] = Plan.of(inventory, dict(drops[-space.max_drops :]))
    return plans


def _preference(choice: Choice, wanted: Sequence[int], *, channel: bool) -> tuple[int, bool]:
    """Sort key of a quantization: the first of the wanted bits, then its groups."""
    bits, group_size = (getattr(choice, knob) for knob in ("bits", "group_size"))
    return wanted.index(bits), (group_size == "channel") == channel


def _fit(sums: list[float], blocks: list[int], measured: list[float]) -> tuple[float, float]:
    """Coefficients ``scale`` and ``per_block`` of ``scale * sum + per_block * blocks``.

    Non-negative least squares, with errors relative to the measured times.
    """
    from scipy.optimize import nnls

    weight = 1 / np.array(measured)
    matrix = np.column_stack([sums, blocks]) * weight[:, None]
    solution, _ = nnls(matrix, np.ones(len(measured)))
    return float(solution[0]), float(solution[1])
