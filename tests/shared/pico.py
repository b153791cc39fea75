"""Pico models: two layers, random weights, one for each family that the project must handle."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

LAYERS = 2
VOCABULARY = 128
_GATED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_OLDER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_ENDS = {"bos_token_id": 0, "eos_token_id": 0}

FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**_GATED, **_ENDS, intermediate_size=64, tie_word_embeddings=True)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**_GATED, **_ENDS, intermediate_size=64, tie_word_embeddings=False)),
    # 86 is divided by no usual group size, nor by 32.
    "mistral": (
        MistralForCausalLM,
        MistralConfig(**_GATED, **_ENDS, intermediate_size=86, head_dim=8, tie_word_embeddings=False),
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(**_ENDS, vocab_size=VOCABULARY, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=64),
    ),
    "opt": (OPTForCausalLM, OPTConfig(**_OLDER, **_ENDS, ffn_dim=64, word_embed_proj_dim=32)),
    "bert": (BertForMaskedLM, BertConfig(**_OLDER, intermediate_size=64)),
}
PICO_NAMES = tuple(FAMILIES)
CAUSAL_NAMES = tuple(name for name in PICO_NAMES if name != "bert")


def build(name: str, seed: int = 0) -> PreTrainedModel:
    """The model of a family, in float32, weights large enough for a layer's change to show; biases are random too."""
    model_class, config = FAMILIES[name]
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.tie_weights()
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each ASCII character; character 0 ends a text."""
    words = Tokenizer(models.WordLevel({chr(i): i for i in range(VOCABULARY)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="\0", eos_token="\0", pad_token="\0", mask_token="\1", model_max_length=64
    )


def save(name: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """A model folder of a family, tokenizer included."""
    build(name, seed).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
