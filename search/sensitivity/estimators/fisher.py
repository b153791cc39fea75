"""Estimator ``fisher``: curvature of the loss along each change, from one backward sweep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paredown.compressors.calibration.backward_sweep import Trace
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity.estimators import Estimator, estimators, is_swept, kept, pairs_of
from paredown.search.sensitivity.measurements import Evidence, Pair, Sensitivity
from paredown.space.space import Space

SEED = 0
"""Seed of the sampled labels."""


def swept(space: Space) -> list[Pair]:
    """Pairs whose loss a gradient predicts: linear sites inside blocks."""
    return [(site, choice) for site, choice in pairs_of(space) if is_swept(site)]


def measured(space: Space) -> list[Pair]:
    """Pairs that a gradient at the original predicts poorly: embeddings, heads, and choices that leave parts out."""
    return [(site, choice) for site, choice in pairs_of(space) if not is_swept(site)]


def fisher(evidence: Evidence) -> Sensitivity:
    """Half the squared change of the log-likelihood per token, to first order in the change of a layer's outputs.

    The cost is one sweep, and the products of each change with the layer's inputs.
    """
    return kept(evidence.space) | scored(evidence, evidence.texts) | evidence.losses_alone(measured(evidence.space))


def scored(evidence: Evidence, texts: Sequences) -> Sensitivity:
    """Scores of the linear sites inside blocks, from one sweep over the texts.

    Labels are sampled from the model's own predictions, so the score estimates the KL divergence to second order; cross
    terms between tokens are left out. Encoders have no labels: random directions of the final states take their place,
    which estimates the squared error.

    Source:
        Martens, 2014, "New insights and perspectives on the natural gradient method", arXiv 1412.1193, for the Fisher
        information, its labels, and its part in the second-order expansion of the KL divergence. NVIDIA ModelOpt's
        AutoQuantize sums the squares of (dL/dY)(dY) element by element; here a token's products are summed first.
    """
    generator = torch.Generator().manual_seed(SEED)
    tokens, mask = texts.tokens, texts.mask
    causal = evidence.space.inventory.causal
    predicted = int((mask.sum(1) - 1).sum()) if causal else int(mask.sum())

    def sampled(logits: Tensor, _: Tensor) -> Tensor:
        logits = logits[:-1].float()
        labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def projected(states: Tensor, _: Tensor) -> Tensor:
        signs = torch.randint(0, 2, states.shape, generator=generator) * 2 - 1
        norm = states.detach().square().sum(-1).mean()
        return (states * signs).sum() * (2 / norm).sqrt()

    def score(trace: Trace, change: Tensor) -> float:
        return float(((trace.inputs @ change.T) * trace.gradients).sum(1).square().sum()) / (2 * predicted)

    pairs = swept(evidence.space)
    weights = sum(member.parameters for site, _ in pairs for member in site.members)
    evidence.forward_tokens += tokens.numel() * weights / evidence.space.inventory.parameters
    return evidence.scores("fisher", pairs, sampled if causal else projected, score, texts=texts)


estimators.register("fisher")(Estimator(losses=fisher, alone=measured, sweeps=lambda space: 1, projected=swept))
