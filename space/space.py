"""Search spaces: the sites of a model, each with the choices that it may take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from paredown.space.choice import KEEP, Choice, methods, parse_choice
from paredown.space.errors import StudyError
from paredown.space.layouts import site_bytes, site_fault
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.study_file import AtLeast, ChoiceText, Override, SpaceFile
from paredown.space.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Search space of a study.

    Attributes:
        inventory: The model's sites.
        target: The runtime.
        options: Choices by site. A leaf has at least one. A block, attention or feed-forward network has only choices
            that overrule its leaves; it has none if it is always kept.
        max_drops: Upper bound on the blocks, attentions and feed-forward networks that a plan leaves out, counted
            together.
    """

    inventory: Inventory
    target: Target
    options: Mapping[str, tuple[Choice, ...]]
    max_drops: int

    @classmethod
    def build(cls, inventory: Inventory, target: Target, wishes: SpaceFile | None = None) -> Space:
        """The search space that a study file describes.

        Raises:
            StudyError: If an override or a rule matches nothing, or a site is left without a choice.
        """
        wishes = wishes or SpaceFile()
        patterns = [*(override.match for override in wishes.overrides), *(rule.match for rule in wishes.at_least)]
        unused = [pattern for pattern in patterns if not any(_matches(pattern, site) for site in inventory.sites)]
        if unused:
            raise StudyError(
                f"no site matches {', '.join(map(repr, unused))}; `paredown inspect` lists the sites and classes"
            )
        options = {
            site.name: _options(site, target, wishes) if _is_scored(site, inventory) else (KEEP,)
            for site in inventory.sites
        }
        options = {site.name: _held(site, options[site.name], inventory, wishes.at_least) for site in inventory.sites}
        one: dict[Choice, Choice] = {}  # share equal choices as one object, which is fast to compare
        options = {
            name: tuple(one.setdefault(choice, choice) for choice in choices) for name, choices in options.items()
        }
        blocks = sum(site.kind == "block" for site in inventory.parents)
        max_drops = blocks // 4 if wishes.max_drops is None else min(wishes.max_drops, blocks - 1)
        return cls(inventory=inventory, target=target, options=options, max_drops=max_drops)

    @property
    def searched(self) -> tuple[Site, ...]:
        """Sites with more than one way to treat them."""
        return tuple(s for s in self.inventory.sites if len(self.options[s.name]) > s.is_leaf)

    def refusals(self) -> list[str]:
        """Why leaves that can only be kept cannot take their default choices; each reason once."""
        fixed = [site for site in self.inventory.leaves if self.options[site.name] == (KEEP,)]
        faults = [site_fault(site, choice, self.target) for site in fixed for choice in default_choices(site)]
        return list(dict.fromkeys(fault for fault in faults if fault))

    def remarks(self, wishes: SpaceFile) -> list[str]:
        """Choices of the study that no site takes, and kinds of site that keep their defaults; one line each."""
        lists = [
            (f"override {o.match!r}", o.choices, [s for s in self.inventory.sites if _override(s, wishes) == o])
            for o in wishes.overrides
        ]
        plain = [site for site in self.inventory.sites if _override(site, wishes) is None]
        lists += [
            (f"{kind} sites", choices, [s for s in plain if s.kind == kind]) for kind, choices in wishes.choices.items()
        ]
        lines = [line for name, choices, sites in lists for line in _untaken(name, choices, sites, self.target)]
        kinds = dict.fromkeys(site.kind for site in plain if len(default_choices(site)) > site.is_leaf)
        unsaid = [kind for kind in kinds if kind not in wishes.choices]
        if wishes.choices and unsaid:
            named = ", ".join(wishes.choices)
            lines.append(
                f"space.choices names {named}; {', '.join(unsaid)} sites keep their default choices "
                "([] or [keep] turns them off)"
            )
        return lines

    def sizes(self, site: Site) -> list[int]:
        """Stored bytes of the site under each of its options."""
        return [site_bytes(site, choice) for choice in self.options[site.name]]

    def allows(self, plan: Plan) -> bool:
        """Whether every choice of the plan is an option, and the plan leaves out at most `max_drops`."""
        return plan.drops(self.inventory) <= self.max_drops and all(
            choice in self.options[site.name] for site, choice in plan.decided(self.inventory)
        )


def _is_scored(site: Site, inventory: Inventory) -> bool:
    """Whether the loss depends on the site: an encoder's heads and pooler come after the states that are compared."""
    return inventory.causal or site.block is not None or site.kind != "linear"


def _options(site: Site, target: Target, wishes: SpaceFile) -> tuple[Choice, ...]:
    override = _override(site, wishes)
    if override:
        wanted = [parse_choice(text) for text in override.choices]
    elif site.kind in wishes.choices:
        wanted = [parse_choice(text) for text in wishes.choices[site.kind]]
    else:
        wanted = list(default_choices(site))
    faults = {choice: site_fault(site, choice, target) for choice in wanted}
    if override and override.match == site.name:
        wrong = [fault for fault in faults.values() if fault]
        if wrong:
            raise StudyError(f"{site.name}: {'; '.join(wrong)}")
    fitting = [_canonical(choice, site) for choice, fault in faults.items() if not fault]
    if not site.is_leaf:
        return tuple(dict.fromkeys(choice for choice in fitting if choice != KEEP))
    if not fitting and override:
        reason = next((fault for fault in faults.values() if fault), "none was given")
        raise StudyError(
            f"{site.name} can take no choice of override {override.match!r}: {reason}; add one that fits, e.g. keep"
        )
    return tuple(dict.fromkeys(fitting)) or (KEEP,)


def _override(site: Site, wishes: SpaceFile) -> Override | None:
    return next((override for override in wishes.overrides if _matches(override.match, site)), None)


def _untaken(name: str, choices: Sequence[ChoiceText], sites: Sequence[Site], target: Target) -> Iterator[str]:
    """One line per choice that none of the sites can take."""
    for choice in map(parse_choice, choices):
        faults = [site_fault(site, choice, target) for site in sites]
        if choice != KEEP and all(faults):
            yield f"{name}: none takes '{choice}'" + (f" ({faults[0]})" if faults else "; the model has no such site")


def _held(
    site: Site, choices: tuple[Choice, ...], inventory: Inventory, rules: Sequence[AtLeast]
) -> tuple[Choice, ...]:
    """Choices that store the bits per weight that the rules for the site, or for a leaf that it overrules, require."""
    leaves = [leaf for leaf in inventory.leaves if leaf.name in site.covers] if site.covers else [site]
    least = max((rule.bits for rule in rules for one in (site, *leaves) if _matches(rule.match, one)), default=0.0)
    if not least:
        return choices
    weights = sum(member.parameters for leaf in leaves for member in leaf.members)
    found = {choice: 8 * site_bytes(site, choice) / weights for choice in choices}
    held = tuple(choice for choice, bits in found.items() if bits >= least)
    if site.is_leaf and not held:
        most = max(found.values())
        raise StudyError(
            f"{site.name} has no choice of at least {least:g} bits per weight (at_least): its largest has {most:.4g}; "
            "add one, e.g. keep"
        )
    return held


def _canonical(choice: Choice, site: Site) -> Choice:
    """Canonical form of a choice if it is the same for all matrices of the site, else the choice unchanged."""
    forms = {choice.canonical(member.shape) for member in site.members}
    return forms.pop() if len(forms) == 1 else choice


def default_choices(site: Site) -> Sequence[Choice]:
    """Choices that the registered methods offer for a site by default."""
    offers = [methods[name].site_offers(site) for name in methods if site.kind in methods[name].kinds]
    return [choice for offer in offers for choice in offer]


def _matches(pattern: str, site: Site) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], site.name) is not None
        except re.error as error:
            raise StudyError(f"{pattern!r} is not a valid regular expression: {error}") from None
    return pattern == site.name or any(pattern == member.class_name for member in site.members if site.is_leaf)
