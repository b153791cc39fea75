"""The model and the space of a study, from headers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from paredown.compressors.model.assemble import reduced_config
from paredown.compressors.model.dropped_parts import check_places
from paredown.compressors.original.checkpoint import config_of, config_sha256, resolve
from paredown.compressors.original.find_sites import inventory_of
from paredown.space.errors import PlanError
from paredown.space.layouts import leaves_out
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.targets.target import targets


def survey(study_file: StudyFile) -> tuple[Path, Space]:
    """The model's folder and the space of a study; reads only headers.

    Raises:
        CheckpointError: If the model is missing or incomplete.
        StudyError: If the space cannot be built.
    """
    folder = resolve(study_file.model, study_file.revision)
    target = targets[study_file.target]
    config = config_of(folder)
    inventory = inventory_of(folder, config, ties=[*study_file.space.ties, *target.ties])
    return folder, _droppable(Space.build(inventory, target, study_file.space), config)


def reference_of(study_file: StudyFile, folder: Path, inventory: Inventory) -> BaseModelReference:
    """The original as plan files of a study name it."""
    return BaseModelReference(
        name=study_file.model,
        revision=study_file.revision,
        architecture=inventory.architecture,
        config_sha256=config_sha256(folder),
        shapes_sha256=inventory.shapes_sha256(),
    )


def _droppable(space: Space, config: Any) -> Space:
    """The space without drops of blocks or attentions if the remaining ones cannot be renumbered."""
    blocks = [site for site in space.inventory.parents if site.kind == "block" and space.options[site.name]]
    try:
        for site in blocks[:1] + blocks[-1:] if space.max_drops else ():
            reduced_config(config, space.inventory, (site.block,) if site.block is not None else ())
    except PlanError:
        space = replace(space, options={**space.options, **{site.name: () for site in blocks}})
    drops = [
        (s, c)
        for s in space.inventory.parents
        if s.kind == "attention"
        for c in space.options[s.name]
        if leaves_out(s, c)
    ]
    try:
        for site, choice in drops[:1]:
            check_places(config, space.inventory, Plan.of(space.inventory, {site.name: choice}))
    except PlanError:
        stay = {site.name: tuple(c for c in space.options[site.name] if not leaves_out(site, c)) for site, _ in drops}
        space = replace(space, options={**space.options, **stay})
    return space
