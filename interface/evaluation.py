"""Evaluation and text generation of models outside a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paredown.compressors.original.checkpoint import resolve
from paredown.deploy.folder import put_back
from paredown.deploy.load import load
from paredown.evaluators.comparison import interval
from paredown.evaluators.documents import Document
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import cut, tokenizer_of
from paredown.evaluators.sources import document_sets
from paredown.space.errors import CheckpointError, StudyError
from paredown.space.system.paths import expanded

LENGTH = 256
"""Longest sequence that is measured [tokens]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Quality of a model on a text.

    Attributes:
        model: The model as it was given.
        original: Model that it was compared with; None if none was.
        tokens: Number of predicted tokens.
        documents: Number of documents that the tokens come from.
        perplexity: Perplexity of the model per token; None for encoders.
        original_perplexity: Perplexity of the original per token; None for encoders or without an original.
        metric: Name of the metric; None without an original.
        mean: Mean distance from the original, in the metric's unit.
        low: Lower end of the 95 % interval of the mean over documents.
        high: Upper end of that interval.
    """

    model: str
    original: str | None
    tokens: int
    documents: int
    perplexity: float | None
    original_perplexity: float | None = None
    metric: str | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def evaluate_folder(name: str, data: list[str], original: str | None, tokens: int) -> Evaluation:
    """Evaluation of a model, computed in float32, on the held-out part of a text.

    Raises:
        CheckpointError: If a model cannot be loaded.
        StudyError: If the text is missing or too short, or the model is an encoder and no original is given.
    """
    folder = _local(name)
    source = resolve(original) if original else folder
    documents: list[Document] = document_sets(data)["held-out"]
    first = load(source, torch.float32)
    causal = first.get_output_embeddings() is not None and "MaskedLM" not in type(first).__name__
    if not causal and original is None:
        raise StudyError(
            f"{name} is an encoder, which has no perplexity; give the model to compare it with as --original"
        )
    longest = (
        getattr(first.config, "max_position_embeddings", None) or getattr(first.config, "n_positions", None) or LENGTH
    )
    sequences = cut(documents, tokenizer_of(source), tokens=tokens, length=min(LENGTH, longest), what="held-out")
    teacher = Teacher(first, sequences, causal=causal)
    own = teacher.measure(first)
    tokens, count = int(own.tokens.sum()), sequences.documents
    if original is None:
        return Evaluation(model=name, original=None, tokens=tokens, documents=count, perplexity=own.perplexity)
    del first
    quality = teacher.measure(load(folder, torch.float32))
    low, high = interval(quality)
    return Evaluation(
        model=name,
        original=original,
        perplexity=quality.perplexity,
        original_perplexity=own.perplexity,
        metric=quality.metric,
        mean=quality.mean,
        low=low,
        high=high,
        tokens=tokens,
        documents=count,
    )


def continuation(folder: Path, prompt: str, tokens: int, seed: int | None) -> str:
    """The prompt with up to ``tokens`` more tokens: sampled if a seed is given, else the likeliest ones.

    Raises:
        CheckpointError: If the model cannot be loaded or generates nothing.
    """
    model: Any = load(_local(str(folder)))
    if not model.can_generate():
        raise CheckpointError(
            f"{folder} holds {type(model).__name__}, which generates no text; give a causal language model"
        )
    tokenizer = tokenizer_of(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if seed is not None:
        torch.manual_seed(seed)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    mask = torch.ones_like(ids)
    written = model.generate(
        ids, attention_mask=mask, max_new_tokens=tokens, do_sample=seed is not None, pad_token_id=padding
    )
    return str(tokenizer.decode(written[0], skip_special_tokens=True))


def _local(name: str) -> Path:
    """Path of a local folder with a config.json, or of the original of that name.

    Our own folders may lack files that an original must have.
    """
    folder = expanded(name)
    return folder if (put_back(folder) / "config.json").is_file() else resolve(name)
