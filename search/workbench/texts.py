"""The texts of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from paredown.compressors.original.checkpoint import config_of
from paredown.evaluators.sequences import Sequences, calibration_draw, check_tokens, sequence_sets, tokenizer_of
from paredown.evaluators.sources import document_sets
from paredown.space.study_file import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The tokenized texts of a study.

    Attributes:
        sequences: The four sets, by name.
        sha256: Fingerprints of the sets, by name.
        calibration_texts: The calibration texts in the form of a plan file.
        draw: Returns the calibration sequences of a calibration draw, given its number.
    """

    sequences: dict[str, Sequences]
    sha256: dict[str, str]
    calibration_texts: Mapping[str, Any]
    draw: Callable[..., Sequences]

    @classmethod
    def of(cls, study_file: StudyFile, folder: Path) -> Texts:
        """Reads and tokenizes the texts of a study; does not read the weights.

        Args:
            study_file: The study.
            folder: Folder of the study's model.

        Raises:
            CheckpointError: If the model has no tokenizer, or another model's.
            StudyError: If a text is missing, or a set is too short.
        """
        config = config_of(folder)
        sets = document_sets(study_file.data)
        tokenizer = tokenizer_of(folder)
        longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 10**9
        sequences = sequence_sets(sets, tokenizer, study_file.tokens, longest, study_file.seed)
        check_tokens(sequences.values(), config)
        sha256 = {name: part.sha256() for name, part in sequences.items()}
        asked, seed = study_file.tokens, study_file.seed
        tokens, length = asked.calibration, min(asked.sequence_length, longest)
        return cls(
            sequences=sequences,
            sha256=sha256,
            calibration_texts={
                "data": study_file.data,
                "tokens": tokens,
                "sequence_length": length,
                "seed": seed,
                "sha256": sha256["calibration"],
            },
            draw=partial(calibration_draw, sets["calibration"], tokenizer, tokens=tokens, length=length, seed=seed),
        )

    def calibration(self, draw: int = 0) -> Sequences:
        """Calibration sequences of a draw; draw 0 is the study's own."""
        return self.draw(draw=draw) if draw else self.sequences["calibration"]
