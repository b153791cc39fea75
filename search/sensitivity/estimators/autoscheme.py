"""Estimator ``autoscheme``: AutoScheme's score, gradient times weight change at the compressed weights."""

from __future__ import annotations

import math

from paredown.search.sensitivity.estimators import Estimator, estimators, kept
from paredown.search.sensitivity.estimators import fisher as sweep
from paredown.search.sensitivity.estimators.gradient import in_units, measured, product, surprise
from paredown.search.sensitivity.measurements import UNUSABLE, Evidence, Pair, Sensitivity
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from paredown.space.space import Space


def options(space: Space) -> dict[Choice, list[Pair]]:
    """Choices of the linear sites inside blocks, each with the pairs that take it."""
    found: dict[Choice, list[Pair]] = {}
    for site, choice in sweep.swept(space):
        found.setdefault(choice, []).append((site, choice))
    return found


def autoscheme(evidence: Evidence) -> Sensitivity:
    """Sum over weights of abs(gradient * change), scaled to units of the loss, as in AutoRound's AutoScheme.

    For each option, all linear sites that may take it are compressed by it at once; the others are kept. The gradient
    is that of the negative log-likelihood of the texts at the compressed weights, sequence by sequence (AutoScheme too
    uses a batch of one where it sweeps the whole model at once). The cost is one sweep per option.

    Differences: AutoScheme reads 16 sequences of 256 tokens of its own; here all estimators read the same texts.
    AutoScheme scores heads in the same way but then keeps them at high precision, since its score does not suit them.
    Here heads, embeddings and choices that leave parts out are measured alone, and the scores are scaled, both as in
    `gradient`.

    Raises:
        StudyError: If the model is an encoder.

    Source:
        AutoRound's AutoScheme, github.com/intel/auto-round: auto_round/auto_scheme/delta_loss.py,
        `get_score_for_scheme` and `AutoSchemeWrapperLinear`.
    """
    loss = surprise(evidence.space)
    scores: Sensitivity = {}
    for option, pairs in options(evidence.space).items():
        plan = Plan.of(evidence.space.inventory, {site.name: option for site, _ in pairs})
        scores |= evidence.scores("autoscheme", pairs, loss, product, plan)
    alone = evidence.losses_alone(measured(evidence.space))
    sound = {pair: score for pair, score in scores.items() if math.isfinite(score)}
    return kept(evidence.space) | alone | dict.fromkeys(scores, UNUSABLE) | in_units(evidence.space, sound, alone)


estimators.register("autoscheme")(
    Estimator(losses=autoscheme, alone=measured, sweeps=lambda space: len(options(space)))
)
