"""Sensitivities: predicted loss increase of every (site, choice), from few passes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from paredown.compressors.bank.bank import Bank
from paredown.compressors.model.planned_model import PlannedModel
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity.estimators import estimators, is_swept
from paredown.search.sensitivity.measurement_cache import facts_of
from paredown.search.sensitivity.measurements import SEQUENCE_TOKENS, SEQUENCES, UNUSABLE, Evidence, Sensitivity, passes
from paredown.search.sensitivity.stored import SensitivityFile, read_losses, read_sensitivity
from paredown.space.errors import StudyError
from paredown.space.space import Space
from paredown.space.system.files import write_json

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
    """Sensitivities from an estimator, read from ``path`` if its key matches.

    Otherwise they are estimated from facts kept beside the bank's statistics. A fact that any search has measured there
    for the same weights, texts and choice is not measured again.

    Args:
        path: The file, in the study folder.
        estimator: Name of the estimator.
        inputs: Fingerprints of what the losses depend on beside the choices.
        space: Sites and options.
        planned: The model in which plans are scored; all sites are kept on return.
        bank: Compressed sites and the statistics of their inputs.
        texts: Texts as in `Evidence`.
        progress: Called with the number of measurements done and their total.

    Raises:
        UnknownNameError: If there is no such estimator.
        StudyError: If the estimator does not support such a model.
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
    """Content of the file; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        return read_sensitivity(path)
    except StudyError as damage:
        say(f"{str(damage).rpartition(';')[0]}: it is recomputed")
        return None


def estimated(estimator: str, evidence: Evidence) -> Sensitivity:
    """Sensitivities from an estimator, in the order of the space; all sites are kept on return.

    A loss that is not finite counts as unusable: no plan takes that choice if it has another.

    Raises:
        UnknownNameError: If there is no such estimator.
        StudyError: If the estimator does not support such a model.
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
    """Expected cost of an estimator, in tokens of forward passes of the whole model; a backward pass counts as two."""
    found = estimators[estimator]
    alone = sum(
        passes(site, space) * (found.sequences if is_swept(site) else SEQUENCES) for site, _ in found.alone(space)
    )
    projected = sum(member.parameters for site, _ in found.projected(space) for member in site.members)
    swept = 3 * found.sweeps(space) + projected / space.inventory.parameters
    return alone * SEQUENCE_TOKENS + swept * min(text_tokens, found.tokens)
