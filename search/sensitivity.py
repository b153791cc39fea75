"""Predicted loss increase of every (site, choice), from few passes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from paredown.compressors.bank import Bank
from paredown.compressors.planned import PlannedModel
from paredown.evaluators.sequences import Sequences
from paredown.search.estimators import estimators, is_swept
from paredown.search.evidence import SEQUENCE_TOKENS, SEQUENCES, UNUSABLE, Evidence, Sensitivity, passes
from paredown.search.facts import facts_of
from paredown.search.sensitivity_file import SensitivityFile, read_sensitivity
from paredown.search.solver import read_losses
from paredown.space.errors import StudyError
from paredown.space.files import write_json
from paredown.space.space import Space

__all__ = ["Sensitivity", "estimated_tokens", "stored_losses"]


def stored_losses(
    path: Path,
    estimator: str,
    inputs: Sequence[str],
    space: Space,
    planned: PlannedModel,
    bank: Bank,
    texts: Sequences,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Sensitivity:
    """The losses that an estimator predicts, read from a file if it holds those of the same question.

    Else they are made, from facts that lie with the bank's statistics: what any search measured there of the same weights,
    texts and choices is not measured again.

    Args:
        path: The file, in the study's folder.
        estimator: Name of the estimator.
        inputs: Fingerprints of what the losses depend on beside the choices.
        space: Sites and options.
        planned: The model in which plans are scored; left with everything kept.
        bank: Compressed sites, and the statistics of their inputs.
        texts: As of `Evidence`.
        progress: Called with how many of how many measurements are done.

    Raises:
        UnknownNameError: If there is no such estimator.
        StudyError: If it cannot learn such a model.
    """
    variables = sorted(str((site, choice)) for site, choices in space.options.items() for choice in choices)
    key = hashlib.sha256(json.dumps([estimator, *inputs, variables]).encode()).hexdigest()
    stored = _stored(path, bank.say)
    if stored and stored.key == key:
        return read_losses(stored)
    evidence = Evidence(space, planned, bank, texts, facts_of(bank), progress)
    losses = estimated(estimator, evidence)
    content = SensitivityFile(
        key=key,
        estimator=estimator,
        forward_tokens=round(evidence.forward_tokens),
        backward_tokens=round(evidence.backward_tokens),
        losses=[(site, str(choice), loss) for (site, choice), loss in losses.items()],
        angular_distances=evidence.distances,
    )
    write_json(path, content.model_dump())
    return losses


def _stored(path: Path, say: Callable[[str], None]) -> SensitivityFile | None:
    """What the file holds; None where there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        return read_sensitivity(path)
    except StudyError as damage:
        say(f"{str(damage).rpartition(';')[0]}: it is made again")
        return None


def estimated(estimator: str, evidence: Evidence) -> Sensitivity:
    """The losses that an estimator predicts, in the order of the space; the model is left with everything kept.

    What is not finite counts as unusable: no plan that has another choice takes it.

    Raises:
        UnknownNameError: If there is no such estimator.
        StudyError: If it cannot learn such a model.
    """
    try:
        losses = estimators[estimator].losses(evidence)
    finally:
        evidence.finish()
    found = {
        (name, choice): losses[name, choice] for name, choices in evidence.space.options.items() for choice in choices
    }
    return {pair: loss if math.isfinite(loss) else UNUSABLE for pair, loss in found.items()}


def estimated_tokens(estimator: str, space: Space, text_tokens: int) -> float:
    """What an estimator will read, in tokens of forward passes of the whole model; a backward one counts as two."""
    found = estimators[estimator]
    alone = sum(
        passes(site, space) * (found.sequences if is_swept(site) else SEQUENCES) for site, _ in found.alone(space)
    )
    projected = sum(member.parameters for site, _ in found.projected(space) for member in site.members)
    swept = 3 * found.sweeps(space) + projected / space.inventory.parameters
    return alone * SEQUENCE_TOKENS + swept * min(text_tokens, found.tokens)
