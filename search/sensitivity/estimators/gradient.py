"""Estimator ``gradient``: gradient of the loss times each change, from one backward sweep."""

from __future__ import annotations

from statistics import median

import torch
from torch import Tensor, nn

from paredown.compressors.calibration.backward_sweep import Loss, Trace
from paredown.search.sensitivity.estimators import Estimator, estimators, inside, kept
from paredown.search.sensitivity.estimators import fisher as sweep
from paredown.search.sensitivity.measurements import Evidence, Pair, Sensitivity
from paredown.space.errors import StudyError
from paredown.space.space import Space

SCALED = 4
"""Number of sites, spread over the depth, whose measured losses scale the scores."""


def scaled(space: Space) -> list[Pair]:
    """The pairs whose measured losses scale the scores."""
    pairs = inside(space)
    return pairs[len(pairs) // (2 * SCALED) :: max(1, len(pairs) // SCALED)][:SCALED]


def measured(space: Space) -> list[Pair]:
    """The pairs that scale the scores, and those that a gradient at the original predicts poorly."""
    return sweep.measured(space) + scaled(space)


def gradient(evidence: Evidence) -> Sensitivity:
    """Sum over weights of abs(gradient * change), scaled to units of the loss.

    The gradient is that of the negative log-likelihood of the texts, sequence by sequence; the gradient of the KL
    divergence is zero at the original. The score has no unit of its own: the median ratio of a few measured losses to
    their scores scales it.

    Raises:
        StudyError: If the model is an encoder.

    Source:
        AutoRound's AutoScheme (auto_round/auto_scheme/delta_loss.py), which sums abs(gradient * change) over the
        weights. It takes the gradient at the compressed weights, with one sweep per option (`autoscheme`); here one
        sweep at the original serves all options.
    """
    scores = evidence.scores("gradient", sweep.swept(evidence.space), surprise(evidence.space), product)
    alone = evidence.losses_alone(measured(evidence.space))
    return kept(evidence.space) | alone | in_units(evidence.space, scores, alone)


def surprise(space: Space) -> Loss:
    """Mean negative log-likelihood of a sequence, as a loss for traces.

    Raises:
        StudyError: If the model is an encoder.
    """
    if not space.inventory.causal:
        raise StudyError(
            "an encoder has no next-token loss to take the gradient of; say sensitivity: fisher, or single-site"
        )
    return lambda logits, tokens: nn.functional.cross_entropy(logits[:-1].float(), tokens[1:], reduction="mean")


def product(trace: Trace, change: Tensor) -> float:
    """Sum over sequences and weights of abs(gradient * change)."""
    rows = zip(trace.gradients.split(trace.lengths), trace.inputs.split(trace.lengths), strict=True)
    return float(torch.stack([((gradients.T @ inputs) * change).abs().sum() for gradients, inputs in rows]).sum())


def in_units(space: Space, scores: Sensitivity, alone: Sensitivity) -> Sensitivity:
    """The scores times the median ratio of measured losses to scores."""
    known = [(site.name, choice) for site, choice in scaled(space) if scores.get((site.name, choice))]
    unit = median(alone[pair] / scores[pair] for pair in known) if known else 1.0
    return {pair: unit * value for pair, value in scores.items()}


estimators.register("gradient")(Estimator(losses=gradient, alone=measured, sweeps=lambda space: 1))
