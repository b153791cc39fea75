"""Predicted loss increase of every (site, choice), from few forward passes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from paredown.compressors.bank import Bank
from paredown.compressors.planned import PlannedModel
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import EvaluationError
from paredown.space.files import write_atomically
from paredown.space.plan import Plan
from paredown.space.site import Site
from paredown.space.space import Space

REFERENCE_BITS = 3
SEQUENCE_TOKENS = 128
SEQUENCES = 8
UNUSABLE = 1e3
"""Loss of a choice that makes the model's predictions not finite [nats/token]: no plan that has another takes it."""

Sensitivity = dict[tuple[str, Choice], float]


def stored_losses(
    path: Path,
    inputs: Sequence[str],
    space: Space,
    planned: PlannedModel,
    bank: Bank,
    calibration: Sequences,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Sensitivity:
    """The losses of `single_site`, read from a file if they were measured for the same question, else measured and kept there.

    Args:
        path: The file.
        inputs: Fingerprints of what the losses depend on beside the choices.
        space: As of `single_site`, as all that follows.
        planned: The model.
        bank: Compressed sites.
        calibration: Sequences.
        progress: Called with how many of how many passes are done.
    """
    variables = sorted(str((site, choice)) for site, choices in space.options.items() for choice in choices)
    key = hashlib.sha256(json.dumps([*inputs, variables]).encode()).hexdigest()
    if path.is_file() and (stored := json.loads(path.read_text()))["key"] == key:
        return {(site, parse_choice(choice)): loss for site, choice, loss in stored["losses"]}
    losses = single_site(space, planned, bank, calibration, progress)
    rows = [[site, str(choice), loss] for (site, choice), loss in losses.items()]
    angular = list(getattr(bank.statistics, "distances", []))
    content = {"key": key, "estimator": "single-site", "losses": rows, "angular_distances": angular}
    write_atomically(path, json.dumps(content, indent=0))
    return losses


def single_site(
    space: Space, planned: PlannedModel, bank: Bank, calibration: Sequences, progress: Callable[[int, int], None] = lambda done, of: None
) -> Sensitivity:
    """The loss of each site compressed alone at one setting, carried to its other choices by the ratio of output errors.

    The setting is the option nearest to 3 bits. Sites whose output error says little of the loss (embeddings, which also
    make the logits; feed-forward networks; blocks) are measured at every choice.

    Args:
        space: Sites and options.
        planned: The model in which plans are scored; left with everything kept.
        bank: Compressed sites, and the statistics of their inputs.
        calibration: Sequences, of which the first eight are read, 128 tokens each.
        progress: Called with how many of how many passes are done.

    Source:
        The output error of a layer, trace(dW H dW'), with H the second moment of its inputs: Hassibi & Stork, 1992,
        "Second order derivatives for network pruning: Optimal Brain Surgeon"; Frantar et al., 2022, "GPTQ", arXiv 2210.17323.
    """
    planned.swap(Plan())
    teacher = Teacher(planned.model, calibration.head(SEQUENCES, SEQUENCE_TOKENS), causal=space.inventory.causal)

    def measured(site: Site, choice: Choice) -> float:
        planned.swap(Plan.of(space.inventory, {site.name: choice}))
        try:
            return teacher.measure(planned.model).mean
        except EvaluationError:
            return UNUSABLE

    losses: Sensitivity = {}
    sites = [site for site in space.inventory.sites if space.options[site.name]]
    for done, site in enumerate(sites):
        progress(done, len(sites))
        options = [choice for choice in space.options[site.name] if choice != KEEP]
        if KEEP in space.options[site.name]:
            losses[site.name, KEEP] = 0.0
        if site.kind != "linear":
            losses |= {(site.name, choice): measured(site, choice) for choice in options}
            continue
        errors = {choice: output_error(site, choice, bank) for choice in options}
        if not options:
            continue
        reference = min(options, key=lambda c: (abs(getattr(c, "bits", 16) - REFERENCE_BITS), c.method != "quantize", str(c)))
        carried = measured(site, reference) / max(errors[reference], 1e-30)
        losses |= {(site.name, choice): carried * error for choice, error in errors.items()}
    planned.swap(Plan())
    return losses


def output_error(site: Site, choice: Choice, bank: Bank) -> float:
    """Expected squared error of a linear site's outputs: trace(dW H dW') summed over its members."""
    total = 0.0
    decoded = bank.decoded(site, choice)
    for member in site.members:
        name = f"{member.module}.weight"
        change = decoded[name] - bank.parameters[name].float()
        change = change.T if member.transposed else change
        total += float(((change @ bank.statistics[member.module]["second_moment"]) * change).sum())
    return total
