"""Documents as sequences of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from paredown.evaluators.documents import Document
from paredown.space.errors import CheckpointError, StudyError
from paredown.space.study_file import Tokens

SHORTEST = 16
"""Windows shorter than this many tokens are dropped."""


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        CheckpointError: If the folder has none.
    """
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{folder} has no tokenizer ({str(error).splitlines()[0]}); copy the original's tokenizer into it"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Token windows cut from documents.

    Attributes:
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for tokens, 0 for padding; same shape.
        document: Index of the document of each sequence; shape ``(sequences,)``.
    """

    tokens: Tensor
    mask: Tensor
    document: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def head(self, sequences: int, length: int | None = None) -> Sequences:
        """The first ``sequences`` sequences, cut to ``length`` tokens."""
        cut = slice(0, length)
        return Sequences(
            tokens=self.tokens[:sequences, cut], mask=self.mask[:sequences, cut], document=self.document[:sequences]
        )

    def within(self, tokens: int) -> Sequences:
        """The leading sequences that have at most ``tokens`` tokens in all, padding not counted.

        There is always at least one sequence, cut to ``tokens``.
        """
        return self.head(max(1, int((self.mask.sum(1).cumsum(0) <= tokens).sum())), tokens)

    def batches(self, size: int) -> Iterator[Sequences]:
        """Batches of ``size`` consecutive sequences."""
        for i in range(0, len(self), size):
            part = slice(i, i + size)
            yield Sequences(tokens=self.tokens[part], mask=self.mask[part], document=self.document[part])

    @property
    def documents(self) -> int:
        """Number of documents that the sequences come from."""
        return int(self.document.max()) + 1

    def sha256(self) -> str:
        """SHA-256 of tokens and mask."""
        return hashlib.sha256(self.tokens.numpy().tobytes() + self.mask.numpy().tobytes()).hexdigest()


def cut(documents: Sequence[Document], tokenizer: Any, *, tokens: int, length: int, what: str) -> Sequences:
    """Windows of ``length`` tokens, taken from the documents in turn until ``tokens`` are reached.

    The first pass takes the first window of every document, the next pass the second one, and so on.

    Args:
        documents: The documents, in order.
        tokenizer: Tokenizer of the model.
        tokens: Number of tokens wanted; the last window may exceed it.
        length: Tokens per window.
        what: Name of the set, for the message.

    Raises:
        StudyError: If fewer than two documents give a window: an interval needs two.
    """
    streams = []
    for document in documents:
        ids = tokenizer(document.text[: tokens * 16], verbose=False)["input_ids"]
        windows = [ids[i : i + length] for i in range(0, len(ids), length)]
        streams.append([window for window in windows if len(window) >= min(SHORTEST, length)])
    chosen: list[tuple[int, list[int]]] = []
    total = depth = 0
    while total < tokens and any(len(stream) > depth for stream in streams):
        for index, stream in enumerate(streams):
            if len(stream) > depth and total < tokens:
                chosen.append((index, stream[depth]))
                total += len(stream[depth])
        depth += 1
    if len({index for index, _ in chosen}) < 2:
        raise StudyError(
            f"the text is too short: its {what} part has {total} tokens in {len(documents)} documents; give more text"
        )
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    padded = torch.full((len(chosen), length), padding)
    mask = torch.zeros_like(padded)
    for row, (_, window) in enumerate(chosen):
        padded[row, : len(window)] = torch.tensor(window)
        mask[row, : len(window)] = 1
    numbers = {index: i for i, index in enumerate(dict.fromkeys(index for index, _ in chosen))}
    return Sequences(tokens=padded, mask=mask, document=torch.tensor([numbers[index] for index, _ in chosen]))


def sequence_sets(
    sets: Mapping[str, Sequence[Document]], tokenizer: Any, tokens: Tokens, longest: int, seed: int = 0
) -> dict[str, Sequences]:
    """The four sets of a study as sequences.

    ``seed`` decides which calibration and search documents come first. Selection and held-out documents have one fixed
    order, so that studies with different seeds are compared on the same texts.

    Raises:
        StudyError: If a set is too short.
    """
    length = min(tokens.sequence_length, longest)
    wanted = {"search": tokens.search, "selection": tokens.selection, "held-out": tokens.held_out}
    seeds = {"search": seed, "selection": 0, "held-out": 0}
    first = calibration_draw(sets["calibration"], tokenizer, tokens=tokens.calibration, length=length, seed=seed)
    return {"calibration": first} | {
        name: cut(_shuffled(sets[name], seeds[name]), tokenizer, tokens=count, length=length, what=name)
        for name, count in wanted.items()
    }


def calibration_draw(
    documents: Sequence[Document], tokenizer: Any, *, tokens: int, length: int, seed: int, draw: int = 0
) -> Sequences:
    """Calibration sequences of a study.

    Draw 0 is the one that plans are compressed with; the others show how much the result depends on the draw.

    Raises:
        StudyError: If the documents are too short.
    """
    shuffled = _shuffled(documents, seed) if draw == 0 else _shuffled(documents, f"{seed}, draw {draw}")
    return cut(shuffled, tokenizer, tokens=tokens, length=length, what="calibration")


def check_tokens(parts: Iterable[Sequences], config: Any) -> None:
    """Checks that a model of this configuration has every token of the sequences.

    Raises:
        CheckpointError: If the tokenizer belongs to another model.
    """
    largest = max(int(part.tokens.max()) for part in parts)
    if largest >= config.vocab_size:
        raise CheckpointError(
            f"the tokenizer produces token {largest}, but the model's vocabulary has {config.vocab_size} entries; "
            "use the tokenizer of this model"
        )


def _shuffled(documents: Sequence[Document], seed: int | str) -> list[Document]:
    return sorted(documents, key=lambda document: hashlib.sha256(f"{seed} {document.name}".encode()).digest())
