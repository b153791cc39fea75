"""Checks of the study, the model's headers and the texts before a search computes anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from paredown.compressors.checkpoint import config_of
from paredown.compressors.gradients import check_importance
from paredown.compressors.memory import memory_bytes
from paredown.evaluators.sequences import Sequences, calibration_draw, sequence_sets
from paredown.evaluators.sources import document_sets
from paredown.search.estimators import estimators
from paredown.search.limits import check_decoding
from paredown.search.samplers import samplers
from paredown.space.errors import CheckpointError, StudyError
from paredown.space.space import Space
from paredown.space.study_file import StudyFile


def check_study(question: StudyFile, config: Any, space: Space) -> None:
    """Checks that a search can use the settings of a study.

    Args:
        question: The study.
        config: The model's configuration.
        space: The study's space on that model.

    Raises:
        StudyError: If a latency table is missing or cannot be measured, or a choice needs statistics that this model
            cannot provide.
        UnknownNameError: If no sampler or no sensitivity estimator is registered under the study's name for it.
    """
    samplers[question.sampler], estimators[question.sensitivity]
    inventory, memory = space.inventory, memory_bytes(question.memory)
    if question.max_decode_ms is not None:
        check_decoding(inventory)
    if question.latency == "measure":
        check_deployed(deployed_bytes(config, space), memory)
    elif question.latency != "off" and not Path(question.latency).is_file():
        raise StudyError(
            f"no latency table {question.latency}; omit `latency` to measure one, or set latency: off to do without"
        )
    if any("importance" in choice.needs for options in space.options.values() for choice in options):
        check_importance(inventory, whole=4 * inventory.parameters <= memory)


def check_deployed(size_bytes: int, memory: int) -> None:
    """Checks that a deployed model fits in memory, since timing plans builds one.

    Raises:
        StudyError: If it does not fit.
    """
    if size_bytes > memory:
        raise StudyError(
            f"timing plans builds the model, which takes {size_bytes:,} bytes, but memory allows {memory:,}; "
            "set latency: off"
        )


def deployed_dtype(config: Any, space: Space) -> torch.dtype:
    """Activation dtype of deployed models: bfloat16 for paredown's kernels, else the dtype of the stored original."""
    stored: torch.dtype = config.dtype or torch.float32
    return torch.bfloat16 if space.target.name == "paredown" else stored


def deployed_bytes(config: Any, space: Space) -> int:
    """Bytes of a deployed model in memory, counted as if nothing were compressed."""
    return deployed_dtype(config, space).itemsize * space.inventory.parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The tokenized texts of a study.

    Attributes:
        sequences: The four sets, by name.
        length: Most tokens of a sequence.
        draw: Returns the calibration sequences of a calibration draw, given its number.
    """

    sequences: dict[str, Sequences]
    length: int
    draw: Callable[..., Sequences]

    @classmethod
    def of(cls, question: StudyFile, folder: Path) -> Texts:
        """Reads and tokenizes the texts of a study; does not read the weights.

        Args:
            question: The study.
            folder: Folder of the study's model.

        Raises:
            CheckpointError: If the model has no tokenizer.
            StudyError: If a text is missing, a set is too short, or the tokenizer belongs to another model.
        """
        config = config_of(folder)
        sets = document_sets(question.data)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{folder} has no tokenizer ({str(error).splitlines()[0]}); copy the original's beside it"
            ) from None
        longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 10**9
        sequences = sequence_sets(sets, tokenizer, question.tokens, longest, question.seed)
        largest = max(int(part.tokens.max()) for part in sequences.values())
        if largest >= config.vocab_size:
            raise StudyError(
                f"the tokenizer produces token {largest}, but the model's vocabulary has {config.vocab_size} entries; "
                "use the tokenizer of this model"
            )
        length = min(question.tokens.sequence_length, longest)
        settings = {"tokens": question.tokens.calibration, "seed": question.seed, "length": length}
        return cls(
            sequences=sequences,
            length=length,
            draw=partial(calibration_draw, sets["calibration"], tokenizer, **settings),
        )
