"""AutoScheme's score: gradient times change of each weight, from one backward sweep an option, at the weights compressed by it."""

from __future__ import annotations

import math

from paredown.search.estimators import Estimator, estimators, kept
from paredown.search.estimators import fisher as sweep
from paredown.search.estimators.gradient import in_units, measured, product, surprise
from paredown.search.evidence import UNUSABLE, Evidence, Pair, Sensitivity
from paredown.space.choice import Choice
from paredown.space.plan import Plan
from paredown.space.space import Space


def options(space: Space) -> dict[Choice, list[Pair]]:
    """What some linear site inside a block may take, with all the pairs of such sites that take it."""
    found: dict[Choice, list[Pair]] = {}
    for site, choice in sweep.swept(space):
        found.setdefault(choice, []).append((site, choice))
    return found


def autoscheme(evidence: Evidence) -> Sensitivity:
    """Sum of the absolute products of gradient and change of each weight, in units of the loss, as AutoRound's AutoScheme takes it.

    For each option all linear sites that may take it are compressed by it at once, the others are kept. The gradient is that
    of the negative log-likelihood of the texts, at the compressed weights, sequence by sequence (AutoScheme too has a batch
    of one where it sweeps the whole model at once). Costs one sweep an option.

    Different: AutoScheme reads 16 sequences of 256 tokens of its own, here the texts are those of all estimators; what it scores heads
    by (the same, but it then keeps them at high precision, since its score does not suit them), embeddings, and what leaves parts
    out, are measured alone, as `gradient` has it, which also gives the scores their unit.

    Raises:
        StudyError: If the model is an encoder.

    Source:
        AutoRound's AutoScheme, github.com/intel/auto-round: auto_round/auto_scheme/delta_loss.py, `get_score_for_scheme` and
        `AutoSchemeWrapperLinear`.
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
