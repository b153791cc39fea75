"""Uniform plans, the baseline without a search: one choice for every linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.space.choice import KEEP, Choice, methods
from paredown.space.layouts import site_bytes, site_fault
from paredown.space.plan import Plan
from paredown.space.site import Site
from paredown.space.space import Space

BITS = (8, 6, 5, 4, 3, 2)
GROUPS = (64, 32, 128)
"""Bit-widths and group sizes of uniform plans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformPlan:
    """A uniform plan with its label and size [bytes]."""

    label: str
    plan: Plan
    size_bytes: int


def uniform_plan(space: Space, bits: int, group_size: int, embedding: Choice) -> UniformPlan:
    """The plan with the same bits and group size in every linear layer.

    Where the group size does not divide, whole channels are used; where nothing fits, the layer is kept. A site that
    the study restricts to other choices takes the one nearest in bytes, since the search is bound by it as well.
    """
    quantize = methods["quantize"]
    choices = {}
    for site in space.inventory.leaves:
        options = space.options[site.name]
        # Use the algorithm that the study offers at the site, so that both sides of the comparison use the same one.
        algorithm = (
            next((getattr(option, "algorithm", None) for option in options if option.method == "quantize"), None)
            or "search"
        )
        knobs = {"bits": bits, "algorithm": algorithm}
        candidates = [quantize.build({**knobs, "group_size": group}) for group in (group_size, "channel")]
        if len(options) == 1:
            choices[site.name] = options[0]
        elif site.kind == "embedding":
            choices[site.name] = embedding if embedding in options else options[0]
        else:
            fitting = [choice for choice in candidates if site_fault(site, choice, space.target) is None]
            wanted = fitting[0].canonical(site.members[0].shape) if fitting else KEEP
            choices[site.name] = wanted if _allowed(wanted, options) else _nearest(site, wanted, options)
    plan = Plan.of(space.inventory, choices)
    label = f"{bits} bits, groups of {group_size}"
    if (found := _embedding(space)) is not None and len(space.options[found.name]) > 1:
        label += f", embedding {embedding}"
    return UniformPlan(label=label, plan=plan, size_bytes=plan.size_bytes(space.inventory))


def uniform_plans(space: Space, budget_bytes: int) -> list[UniformPlan]:
    """Uniform plans worth a trial.

    For each group size and treatment of the embedding this is the plan with the most bits within the budget. One plan
    per bit-width is added, so that the whole front can be compared.
    """
    site = _embedding(space)
    embeddings = _embedding_choices(site, space.options[site.name]) if site else [KEEP]
    found: dict[Plan, UniformPlan] = {}
    for embedding in embeddings:
        for group in GROUPS:
            plans = [uniform_plan(space, bits, group, embedding) for bits in BITS]
            fitting = next((plan for plan in plans if plan.size_bytes <= budget_bytes), None)
            if fitting:
                found.setdefault(fitting.plan, fitting)
    eight = next((c for c in embeddings if getattr(c, "bits", None) == 8), embeddings[0])
    for bits in BITS:
        plan = uniform_plan(space, bits, GROUPS[0], eight)
        found.setdefault(plan.plan, plan)
    return sorted(found.values(), key=lambda plan: (-plan.size_bytes, plan.label))


def _allowed(wanted: Choice, options: Sequence[Choice]) -> bool:
    """Whether a site may take these bits; the group size of a uniform plan need not be among the site's own."""
    return wanted in options or any(
        o.method == wanted.method and getattr(o, "bits", None) == getattr(wanted, "bits", None) for o in options
    )


def _nearest(site: Site, wanted: Choice, options: Sequence[Choice]) -> Choice:
    size = site_bytes(site, wanted)
    return min(options, key=lambda option: (abs(site_bytes(site, option) - size), str(option)))


def _embedding_choices(site: Site, options: Sequence[Choice]) -> list[Choice]:
    """Plain options of an embedding; if the study offers none, the option nearest to 8 bits in bytes."""
    plain = [choice for choice in options if choice.method in ("keep", "cast", "quantize") and _plain(choice)]
    return plain or [_nearest(site, methods["quantize"].build({"bits": 8}), options)]


def _plain(choice: Choice) -> bool:
    return getattr(choice, "bits", 8) in (8, 6, 4)


def _embedding(space: Space) -> Site | None:
    return next((site for site in space.inventory.leaves if site.kind == "embedding"), None)
