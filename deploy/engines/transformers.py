"""transformers: ``from_pretrained`` and eager PyTorch.

This file imports nothing of paredown, so that a fresh process can show that a folder loads without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

NEEDS_PAREDOWN = False


class TorchModel:
    """A transformers model in this process.

    Args:
        model: The model.
        causal: Whether it predicts the next token.
        missing: Names of tensors that its folder lacked.
        unexpected: Names of tensors in its folder that it does not know.
    """

    def __init__(
        self, model: Any, *, causal: bool, missing: Iterable[str] = (), unexpected: Iterable[str] = ()
    ) -> None:
        self.model, self.causal = model, causal
        self.missing, self.unexpected = sorted(missing), sorted(unexpected)
        self._cache: Any = None

    @property
    def vocabulary(self) -> int:
        """Number of tokens that it knows."""
        return int(self.model.config.vocab_size)

    @property
    def longest(self) -> int:
        """Most tokens of a sequence."""
        return getattr(self.model.config, "max_position_embeddings", 1 << 20)

    def outputs(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of a causal model; last hidden states of an encoder."""
        if self.causal:
            logits: torch.Tensor = self.model(input_ids=tokens, use_cache=False).logits
            return logits
        hidden: torch.Tensor = self.model(input_ids=tokens, output_hidden_states=True).hidden_states[-1]
        return hidden

    def prefill(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of a prompt, after which a causal model keeps its cache; the first output of an encoder."""
        self._cache = None
        return self._logits(tokens)

    def decode(self, token: torch.Tensor) -> torch.Tensor:
        """Logits of one more token, ``(n, 1)``, after what the cache holds."""
        return self._logits(token, cache=self._cache)

    def _logits(self, tokens: torch.Tensor, **cache: Any) -> torch.Tensor:
        result = self.model(input_ids=tokens, **cache, **({"use_cache": True} if self.causal else {}))
        self._cache = result.cache if self.causal else None
        logits: torch.Tensor = result[0]
        return logits

    def generate(self, prompt: torch.Tensor, tokens: int) -> torch.Tensor:
        """The prompt with this many of the likeliest tokens."""
        mask = torch.ones_like(prompt)
        written: torch.Tensor = self.model.generate(
            prompt, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0
        )
        return written


wrap = TorchModel


def open_folder(folder: Path, dtype: torch.dtype, *, causal: bool) -> TorchModel:
    """The model that ``from_pretrained`` loads."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    found: Any = transformers.AutoModelForCausalLM if causal else getattr(transformers, architecture)
    model, info = found.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    missing, unexpected = map(str, info["missing_keys"]), [*info["unexpected_keys"], *info["mismatched_keys"]]
    return TorchModel(model.eval(), causal=causal, missing=missing, unexpected=map(str, unexpected))
