"""The texts of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from paredown.compressors.original.checkpoint import config_of
from paredown.evaluators.sequences import Sequences, calibration_draw, sequence_sets, tokenizer_of
from paredown.evaluators.sources import document_sets
from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile


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
        tokenizer = tokenizer_of(folder)
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
