"""Checks of the study, the model's headers and the texts before a search computes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paredown.compressors.calibration.importance import check_importance
from paredown.compressors.original.memory_limit import memory_bytes
from paredown.evaluators.metrics import metric_for, metrics
from paredown.search.samplers import samplers
from paredown.search.sensitivity.estimators import estimators
from paredown.search.solver.limits import check_decoding
from paredown.search.workbench.deployed import check_deployed, deployed_bytes
from paredown.space.errors import StudyError
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


def check_names(study_file: StudyFile) -> None:
    """Raises `UnknownNameError` if no sampler, sensitivity or metric is registered under the study's name for it."""
    samplers[study_file.sampler], estimators[study_file.sensitivity]
    metrics[metric_for("auto", causal=True) if study_file.metric == "auto" else study_file.metric]


def check_study(study_file: StudyFile, config: Any, space: Space) -> None:
    """Checks that a search can use the settings of a study.

    Args:
        study_file: The study.
        config: The model's configuration.
        space: The study's space on that model.

    Raises:
        StudyError: If a latency table is missing or cannot be measured, or a choice needs statistics that this model
            cannot provide, or the metric is for other models.
        UnknownNameError: If no sampler, sensitivity or metric is registered under the study's name for it.
    """
    check_names(study_file)
    inventory, memory = space.inventory, memory_bytes(study_file.memory)
    metric_for(study_file.metric, causal=inventory.causal)
    if study_file.max_decode_ms is not None:
        check_decoding(inventory)
    if study_file.latency == "measure":
        check_deployed(deployed_bytes(config, space), memory)
    elif study_file.latency != "off" and not Path(study_file.latency).is_file():
        raise StudyError(
            f"no latency table {study_file.latency}; omit `latency` to measure one, or set latency: off to do without"
        )
    if any("importance" in choice.needs for options in space.options.values() for choice in options):
        check_importance(inventory, whole=4 * inventory.parameters <= memory)
