"""The model card of a compressed model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from paredown.space.plan_file import PlanFile

LOAD = {
    "paredown": "import paredown\n\nmodel = paredown.load({folder!r})",
    "transformers": "from transformers import {architecture}\n\nmodel = {architecture}.from_pretrained({folder!r})",
}


def model_card(plan_file: PlanFile, metrics: Mapping[str, Any], folder: str = "path/of/this/folder") -> str:
    """The text of ``README.md``: where the model came from, its sizes, quality and speed as the plan file has them, and the plan."""
    base = plan_file.base_model
    head = {
        "base_model": base.name,
        "base_model_relation": "quantized",
        "library_name": plan_file.target,
        "tags": ["paredown"],
    }
    size = metrics["size"]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {base.name}, pared down",
        f"{base.architecture}, compressed by paredown for target `{plan_file.target}`.",
        "## Size",
        "| what | bytes |\n| --- | --- |\n"
        f"| tensors | {size['tensors']} |\n| tensors of the original | {size['original']} |\n| file headers | {size['header']} |",
        f"{100 * size['share_of_original']:.2f} % of the original, {size['bits_per_weight']:.3f} stored bits per original parameter.",
    ]
    if storage := _storage_only(plan_file):
        parts.append(
            f"Savings of {', '.join(storage)} are on disk only: these layers are dense in memory and no faster."
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
        f"```python\n{LOAD[plan_file.target].format(folder=folder, architecture=base.architecture)}\n```",
    ]
    parts += ["## Plan", f"```yaml\n{plan_file.to_yaml()}```"]
    return "\n\n".join(parts) + "\n"


def _block(values: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}```"


def _storage_only(plan_file: PlanFile) -> list[str]:
    return sorted({step.method for choice in plan_file.parsed().values() for step in choice.steps if step.storage_only})
