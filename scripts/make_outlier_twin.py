"""Makes a twin of a model with outlier channels behind each norm: the same function, harder to compress.

    python scripts/make_outlier_twin.py studies/models/demo checkpoints/outliers

Behind each norm that only an attention or a feed-forward network reads, some channels, drawn by the seed, become 30
times as large. The norm's weight and bias there are multiplied; the columns that read them are divided. The final
norm stays, because a tied head reads it. The twin is stored in float32, because bfloat16 cannot hold a thirtieth of
its own numbers exactly. Exits 1 if the logits differ from the original's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from paredown.compressors.original.find_sites import inventory_of
from paredown.space.site import Inventory

TOKENS = (4, 64)
"""Shape of the random tokens for the comparison: sequences, length."""

CLOSE = 1e-3
"""Greatest allowed difference of the logits, as a share of the largest logit."""


@torch.no_grad()
def add_outliers(model: PreTrainedModel, inventory: Inventory, share: float, gain: float, seed: int) -> int:
    """Adds outlier channels to a model in place; the function stays the same. Returns their number over all norms."""
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    made = 0
    for site in inventory.sites:
        readers = site.members[:-1] if site.norm else ()  # the last member reads neurons or heads, not the norm
        scale = torch.ones(readers[0].shape[1] if readers else 0)
        chosen = torch.randperm(len(scale), generator=generator)[: max(1, round(share * len(scale)))]
        scale[chosen] = gain
        for name in site.norm:
            parameters[name].mul_(scale)
        for member in readers:
            parameters[f"{member.module}.weight"].div_(scale[:, None] if member.transposed else scale)
        made += len(chosen)
    return made


@torch.no_grad()
def difference(one: PreTrainedModel, other: PreTrainedModel) -> float:
    """Largest difference of the logits on random tokens, as a share of the largest logit."""
    tokens = torch.randint(one.config.vocab_size, TOKENS, generator=torch.Generator().manual_seed(0))
    expected, found = (model.eval()(input_ids=tokens, use_cache=False).logits for model in (one, other))
    largest: Tensor = (expected - found).abs().max() / expected.abs().max()
    return float(largest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.03, help="share of each norm's channels that become outliers")
    parser.add_argument("--gain", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    original = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    twin = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    made = add_outliers(twin, inventory_of(options.model), options.share, options.gain, options.seed)
    if not made:
        print(
            f"{options.model} has no norm that only an attention or a feed-forward network reads; nothing was written"
        )
        return 1
    twin.save_pretrained(options.out)
    AutoTokenizer.from_pretrained(options.model).save_pretrained(options.out)
    found = difference(original, AutoModelForCausalLM.from_pretrained(options.out))
    print(
        f"wrote {options.out}: {made} channels {options.gain:g} times as large; "
        f"logits differ by {found:.2g} of the largest"
    )
    return int(not found <= CLOSE)


if __name__ == "__main__":
    sys.exit(main())
