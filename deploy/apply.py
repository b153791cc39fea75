"""A plan made real: a folder with the compressed model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.absent import check_places
from paredown.compressors.assemble import reduced_config
from paredown.compressors.bank import one_thread
from paredown.compressors.checkpoint import config_of, config_sha256, resolve
from paredown.compressors.origin import Origin
from paredown.compressors.sites import inventory_of
from paredown.compressors.storage import encode_site
from paredown.compressors.weights import original_weights
from paredown.deploy.card import model_card
from paredown.deploy.folder import MANIFEST, check_folder, replaced
from paredown.deploy.formats import formats, write_json
from paredown.deploy.header import read_header
from paredown.deploy.scored import Written
from paredown.deploy.shards import SHARD_BYTES
from paredown.space.choice import Choice
from paredown.space.errors import OutputError, VerificationError
from paredown.space.interruption import stop_if_asked
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory, Site
from paredown.space.statistics import StatisticsOf
from paredown.space.target import targets
from paredown.space.tensors import total_bytes

COPIED = (
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model", "chat_template*",
    "generation_config.json",
)  # fmt: skip

TensorsOf = Callable[[Site, Choice], Mapping[str, Tensor] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was written.

    Attributes:
        folder: Where.
        size_bytes: Of the tensors, read back from the files' headers.
        predicted_bytes: What the plan says; equal.
        original_bytes: Of the original's tensors as stored.
        header_bytes: Of the files' headers, which no budget counts.
        other_texts: Whether it was calibrated on other texts than the plan was measured with.
        differences: Why its tensors are not those that the plan was measured with; empty where they are, or the plan does not say.
    """

    folder: Path
    size_bytes: int
    predicted_bytes: int
    original_bytes: int
    header_bytes: int
    other_texts: bool = False
    differences: tuple[str, ...] = ()


def apply_plan(
    plan_file: PlanFile,
    model: str | Path,
    out: str | Path,
    tensors_of: TensorsOf | None = None,
    statistics: StatisticsOf | None = None,
    shard_bytes: int = SHARD_BYTES,
    *,
    other_texts: bool = False,
    origin: Origin | None = None,
) -> Applied:
    """Writes the compressed model with its plan, metrics and card; whole or not at all.

    Weights are read and written site by site: one site is in memory at a time, however large the model is.

    Args:
        plan_file: The plan.
        model: The original's folder or hub name: the model that the plan was made on, or a fine-tune of it.
        out: The folder to write; replaced if it is one of ours.
        tensors_of: Where compressed sites may be had ready, a bank's; None, or None from it, encodes them here.
        statistics: Of the inputs, by name of the module, for calibrated choices that are encoded here.
        shard_bytes: Most tensor bytes of a file; a smaller model is one file.
        other_texts: Whether calibrated choices saw other texts than the plan was measured with.
        origin: Of the original; found out here by default, which reads all weights once more.

    Raises:
        CheckpointError: If the original is missing, incomplete or compressed already.
        PlanError: If the plan does not fit it; no weight was touched.
        OutputError: If the folder is not ours or cannot be written; it is left as it was.
        VerificationError: If what was written has other bytes than the plan says, or is not what was scored though nothing it follows
            from changed.
    """
    source, out = resolve(str(model)), Path(out)
    config = config_of(source)
    inventory = inventory_of(source, config, targets[plan_file.target].ties)
    plan = plan_file.plan_for(inventory)
    predicted = plan.size_bytes(inventory)
    if config_sha256(source) == plan_file.base_model.config_sha256 and predicted != plan_file.size_bytes:
        raise VerificationError(
            f"the plan file says {plan_file.size_bytes} bytes, its choices take {predicted}; set size_bytes to that"
        )
    reduced_config(config, inventory, plan.dropped(inventory))
    check_places(config, inventory, plan)
    check_folder(out)
    if out.resolve() == source.resolve():
        raise OutputError(f"{out} is the original; choose another folder")
    written = Written(plan_file.records)
    tensors = encoded_tensors(inventory, plan, original_weights(source, config), tensors_of, statistics, written)
    with replaced(out) as folder:
        formats[plan_file.target](
            folder, config=config, inventory=inventory, plan=plan, tensors=tensors, shard_bytes=shard_bytes
        )
        size, header = _check_bytes(folder, inventory, plan)
        records = (origin or Origin.of(source, config)).records(written.sha256)
        applied = Applied(
            folder=out,
            size_bytes=size,
            predicted_bytes=predicted,
            original_bytes=inventory.original_bytes,
            header_bytes=header,
            other_texts=other_texts,
            differences=tuple(written.compare(records, other_texts=other_texts)),
        )
        _write_beside(folder, source, plan_file.model_copy(update={"records": records}), inventory, applied)
    return applied


def encoded(
    inventory: Inventory,
    plan: Plan,
    parameters: Mapping[str, Tensor],
    tensors_of: TensorsOf | None = None,
    statistics: StatisticsOf | None = None,
) -> dict[str, Tensor]:
    """Every tensor of the plan's layout, from the original's ``parameters``, which are not modified; all in memory."""
    return dict(encoded_tensors(inventory, plan, parameters, tensors_of, statistics))


@torch.no_grad()
def encoded_tensors(
    inventory: Inventory,
    plan: Plan,
    parameters: Mapping[str, Tensor],
    tensors_of: TensorsOf | None,
    statistics: StatisticsOf | None,
    written: Written | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """The same one by one; a site is compressed when its first tensor is taken, and ``written`` takes note of it."""
    done: set[str] = set()
    for site, choice in plan.decided(inventory):
        stop_if_asked()
        ready = tensors_of(site, choice) if tensors_of else None
        if ready is None:
            with one_thread():  # as the bank has it: sums in several threads may differ in their last bits
                tensors = encode_site(site, choice, parameters, statistics)
        else:
            tensors = dict(ready)
        if written:
            written.add(site, choice, tensors)
        done |= tensors.keys()
        yield from tensors.items()
    for name, spec in plan.layout(inventory).items():
        if name not in done:
            yield name, parameters[name].detach().to(getattr(torch, spec.dtype)).contiguous()


def _check_bytes(folder: Path, inventory: Inventory, plan: Plan) -> tuple[int, int]:
    """Tensor bytes and header bytes of a folder, once they are those of the plan."""
    found, header = read_header(folder)
    size, predicted = total_bytes(found), plan.size_bytes(inventory)
    if size != predicted or sorted(s.size_bytes for s in found.values()) != sorted(
        s.size_bytes for s in plan.layout(inventory).values()
    ):
        raise VerificationError(f"{size} tensor bytes were written, the plan says {predicted}; report this as a bug")
    return size, header


def _write_beside(folder: Path, source: Path, plan_file: PlanFile, inventory: Inventory, applied: Applied) -> None:
    for pattern in COPIED:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    plan_file.write(folder / "plan.yaml")
    metrics: dict[str, Any] = {
        "target": plan_file.target,
        "size": {
            "unit": "bytes",
            "tensors": applied.size_bytes,
            "predicted": applied.predicted_bytes,
            "original": applied.original_bytes,
            "header": applied.header_bytes,
            "share_of_original": applied.size_bytes / applied.original_bytes,
            "bits_per_weight": 8 * applied.size_bytes / inventory.parameters,
        },
        "quality": plan_file.quality,
        "latency": plan_file.latency,
        "compared_with": plan_file.compared_with,
    }
    (folder / "README.md").write_text(model_card(plan_file, metrics), encoding="utf-8")
    files = sorted({path.name for path in folder.iterdir()} | {MANIFEST})
    write_json(folder / MANIFEST, metrics | {"files": files})
