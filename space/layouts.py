"""Layout of a matrix or a site under a choice: the tensors that store it, or why the choice is refused."""

from __future__ import annotations

from paredown.space.choice import KEEP, Choice, Shape, matrix_choice
from paredown.space.site import Member, Site
from paredown.space.structure_choice import StructureChoice
from paredown.space.targets.target import Target
from paredown.space.tensors import TensorSpec, total_bytes


def matrix_layout(choice: Choice, shape: Shape, dtype: str) -> dict[str, TensorSpec]:
    """Tensors that store a matrix under a choice; bytes are counted from them, and files hold exactly these."""
    step = matrix_choice(choice)
    layout = dict(step.own(shape, dtype))
    for name, part in step.parts(shape).items():
        if choice.then:
            prefix = f"{name}." if name != "weight" else ""
            layout |= {prefix + key: spec for key, spec in matrix_layout(choice.then, part, dtype).items()}
        else:
            layout[name] = TensorSpec(dtype, part)
    return layout


def matrix_fault(choice: Choice, shape: Shape) -> str | None:
    """Why a matrix of this shape cannot take the choice or its ``then``, with the remedy; None if it can."""
    step = matrix_choice(choice)
    if fault := step.fault(shape):
        return fault
    if choice.then is None:
        return None
    if not step.parts(shape):
        return f"{choice.method} leaves no dense part for 'then {choice.then}'; leave the 'then' out"
    if "linear" not in choice.then.kinds:
        return f"'{choice.then.method}' cannot follow '{choice.method}'"
    return next((fault for part in step.parts(shape).values() if (fault := matrix_fault(choice.then, part))), None)


def inner(site: Site, choice: Choice) -> Choice:
    """Choice for each matrix of a site: the choice itself, or its ``then`` where the choice changes the structure."""
    return (choice.then or KEEP) if site.structured else choice


def site_layout(site: Site, choice: Choice) -> dict[str, TensorSpec]:
    """Tensors that store a site under a choice, by name; biases included, norms excluded (they belong to the block)."""
    layout: dict[str, TensorSpec] = {}
    for member, shape in choice_members(site, choice):
        layout |= {
            f"{member.module}.{key}": spec
            for key, spec in matrix_layout(inner(site, choice), shape, member.dtype).items()
        }
        if member.bias:
            layout[f"{member.module}.bias"] = TensorSpec(member.bias.dtype, (shape[0],))
    return layout


def site_bytes(site: Site, choice: Choice) -> int:
    """Bytes of the tensors that store a site under a choice."""
    return total_bytes(site_layout(site, choice))


def stored_bytes(site: Site, choice: Choice) -> int:
    """Bytes of a site under a choice; a block's norms are subtracted, since a dropped block frees them."""
    return site_bytes(site, choice) - site.rest_bytes


def leaves_out(site: Site, choice: Choice) -> bool:
    """Whether a choice removes a site entirely."""
    return isinstance(choice, StructureChoice) and site.kind in choice.kinds and not choice.shapes(site)


def choice_members(site: Site, choice: Choice) -> list[tuple[Member, Shape]]:
    """Members that remain of a site under a choice, each with its remaining shape."""
    if not isinstance(choice, StructureChoice):
        return [(member, member.shape) for member in site.members]
    return list(zip(site.members, shapes, strict=True)) if (shapes := choice.shapes(site)) else []


def site_fault(site: Site, choice: Choice, target: Target) -> str | None:
    """Why a site cannot take a choice under a target, with the remedy; None if it can."""
    if site.kind not in choice.kinds:
        return (
            f"'{choice.method}' is for {' and '.join(sorted(choice.kinds))} sites; {site.name} is of kind {site.kind}"
        )
    if reason := next((reason for step in choice.steps if (reason := step.supports(site, target))), None):
        return reason
    if isinstance(choice, StructureChoice) and (fault := choice.site_fault(site)):
        return f"{site.name}: {fault}"
    members = choice_members(site, choice)
    if not members and choice.then:
        return f"{choice.method} leaves nothing of {site.name} for 'then {choice.then}'; leave the 'then' out"
    if site.structured and choice.then and "linear" not in choice.then.kinds:
        return f"'{choice.then.method}' cannot follow '{choice.method}'"
    faults = ((member, matrix_fault(inner(site, choice), shape)) for member, shape in members)
    return next((f"{member.module}: {fault}" for member, fault in faults if fault), None)
