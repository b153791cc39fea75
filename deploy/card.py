"""The model card of a compressed model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from paredown.space.plan_file import PlanFile
from paredown.space.system.yaml_files import yaml_text
from paredown.space.targets.target import targets


def model_card(plan_file: PlanFile, metrics: Mapping[str, Any], folder: str = "path/to/this/folder") -> str:
    """The text of ``README.md``: origin, sizes, quality and speed from the plan file, how to load, and the plan."""
    base = plan_file.base_model
    head = ModelCardData(
        base_model=base.name, base_model_relation="quantized", library_name=plan_file.target, tags=["paredown"]
    )
    size = metrics["size"]
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {base.name}, pared down",
        f"{base.architecture}, compressed by paredown for target `{plan_file.target}`.",
        "## Size",
        "| what | bytes |\n| --- | --- |\n"
        f"| tensors | {size['tensors']} |\n"
        f"| tensors of the original | {size['original']} |\n"
        f"| file headers | {size['header']} |",
        f"The tensors take {100 * size['share_of_original']:.2f} % of the original's bytes: "
        f"{size['bits_per_weight']:.3f} bits per original parameter.",
    ]
    if storage := _storage_only(plan_file):
        parts.append(
            f"Layers compressed by {', '.join(storage)} are smaller on disk only; "
            "in memory they are dense and no faster."
        )
    for title, values in (
        ("Quality", plan_file.quality),
        ("Speed", plan_file.latency),
        ("Compared with", plan_file.compared_with),
    ):
        text = _block(values) if values else "Not measured."
        parts += [f"## {title}", text]
    parts += [
        "## Use",
        f"```python\n{targets[plan_file.target].usage.format(folder=folder, architecture=base.architecture)}\n```",
    ]
    parts += ["## Plan", f"```yaml\n{plan_file.to_yaml()}```"]
    return "\n\n".join(parts) + "\n"


def _block(values: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml_text(values)}```"


def _storage_only(plan_file: PlanFile) -> list[str]:
    return sorted(
        {step.method for choice in plan_file.parsed().values() for step in choice.steps if step.storage.storage_only}
    )
