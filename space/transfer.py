"""Transfer of a plan to another model of the family: by site name, else by relative depth and role."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from paredown.space.choice import KEEP, Choice, Shape
from paredown.space.errors import PlanError
from paredown.space.layouts import leaves_out, matrix_layout, site_bytes, site_fault
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Inventory, Member, Site, modules_of
from paredown.space.space import Space
from paredown.space.tensors import total_bytes

NEAR = 0.1
"""Relative difference in bytes per weight up to which a choice counts as the same in another shape.

Codebooks, for example, take more bytes per weight in a small matrix.
"""

FAR = 0.3
"""Relative difference in bytes per weight up to which methods that the plan uses are preferred to other methods."""


def transferred(plan_file: PlanFile, space: Space, original: Inventory | None = None) -> Plan:
    """A plan of a first model, transferred to a second model of the family.

    - A site in a block takes the choice of the same role (its name within the block) in the nearest block, by relative
      depth, where that role was decided. A site outside the blocks takes the choice of its name.
    - The same share of the blocks is dropped, at the nearest relative depths; likewise for attentions and feed-forward
      networks.
    - Ranks keep their share of the full rank.
    - A choice that does not fit, or takes other bytes per weight in the new shape, is replaced by the option nearest in
      bytes per weight: of its own method if one is near, else of a method that the plan uses, else of any.
    - A site without a counterpart in the first model takes the option nearest to the mean bytes per weight of all other
      sites.

    Between models of the same names and shapes, every choice that the target can run is unchanged.

    Args:
        plan_file: Plan file of the first model.
        space: Search space of the second model. A site with a single choice takes that choice.
        original: Sites of the first model. Without them, its depth is read from the names in the plan, and ranks are
            unchanged.

    Raises:
        PlanError: If the models are of different families, or the second model cannot take the result.
    """
    inventory, reference = space.inventory, plan_file.base_model
    if inventory.architecture != reference.architecture:
        raise PlanError(
            f"the plan was made for {reference.architecture} ({reference.name}), but the model is "
            f"{inventory.architecture}: another family; give a model of the plan's architecture, or search this one"
        )
    if reference.shapes_sha256 == inventory.shapes_sha256():
        original = original or inventory
    plan = _Transfer(plan_file.parsed(), space, original).plan()
    plan.check(inventory, space.target)
    return plan


def by_depth(block: int, blocks: int, others: int) -> list[int]:
    """Blocks of a model of ``others`` blocks, nearest in relative depth to ``block`` of ``blocks`` first."""
    return sorted(range(others), key=lambda other: (_apart(block, blocks, other, others), other))


def same_share(gone: Collection[int], others: int, blocks: int) -> list[int]:
    """Blocks of the second model that stand for ``gone``: the same share, rounded, nearest in relative depth first.

    Args:
        gone: Blocks of the first model.
        others: Number of blocks of the first model.
        blocks: Number of blocks of the second model.
    """
    count = (2 * len(gone) * blocks + others) // (2 * others) if gone else 0
    return sorted(
        range(blocks), key=lambda b: (min((_apart(b, blocks, other, others) for other in gone), default=0), b)
    )[:count]


def _apart(block: int, blocks: int, other: int, others: int) -> int:
    """Distance of two blocks in relative depth, (b + 1/2) / blocks and (o + 1/2) / others, scaled to an integer."""
    return abs((2 * block + 1) * others - (2 * other + 1) * blocks)


@dataclass(frozen=True)
class _Transfer:
    """Transfer of one plan from a first to a second model.

    Attributes:
        choices: The first model's choices by site name.
        space: Search space of the second model.
        original: Sites of the first model; None if unknown.
    """

    choices: Mapping[str, Choice]
    space: Space
    original: Inventory | None

    def plan(self) -> Plan:
        inventory = self.space.inventory
        found: dict[str, Choice] = self._left_out()
        for site in inventory.parents:
            if site.name not in found and (choice := self._structure(site)):
                found[site.name] = choice
        unknown = []
        for site in inventory.leaves:
            if (choice := self._leaf(site)) is None:
                unknown.append(site)
            else:
                found[site.name] = choice
        known = [(site, choice) for site, choice in Plan.of(inventory, found).decided(inventory) if site not in unknown]
        weights = sum(_weights(site, self.space.inventory) for site, _ in known)
        mean = sum(site_bytes(site, choice) for site, choice in known) / max(weights, 1)
        return Plan.of(
            inventory, found | {site.name: self._nearest(site, self.space.options[site.name], mean) for site in unknown}
        )

    # -- what the first model's plan decides ------------------------------------------------------------

    @cached_property
    def _prefix(self) -> str:
        """Prefix of the names of blocks; the same in both models of a family."""
        return next(site.name.rpartition(".")[0] for site in self.space.inventory.parents if site.kind == "block")

    @cached_property
    def _blocks(self) -> tuple[int, int]:
        """Number of blocks of the first and of the second model."""
        own = sum(site.kind == "block" for site in self.space.inventory.parents)
        if self.original:
            return sum(site.kind == "block" for site in self.original.parents), own
        named = [
            name[len(self._prefix) + 1 :].partition(".")[0]
            for name in self.choices
            if name.startswith(f"{self._prefix}.")
        ]
        return max((int(index) for index in named if index.isdigit()), default=0) + 1, own

    @cached_property
    def _by_module(self) -> Mapping[str, Choice]:
        """The first model's choices of leaves, by module."""
        structures = {self._role(site.name) for site in self.space.inventory.parents}
        inside = [name for name in self.choices if name.startswith(f"{self._prefix}.")]
        whole = {name for name in inside if self._role(name) in structures}
        return {
            module: choice for name, choice in self.choices.items() if name not in whole for module in modules_of(name)
        }

    @cached_property
    def _methods(self) -> set[str]:
        """Names of the methods that the plan uses."""
        return {choice.method for choice in self.choices.values()}

    @cached_property
    def _members(self) -> Mapping[str, Member] | None:
        """The first model's matrices by module; None if its sites are unknown."""
        return (
            {member.module: member for site in self.original.leaves for member in site.members}
            if self.original
            else None
        )

    def _role(self, name: str) -> str:
        """Name of a site or module within its block; empty for the block."""
        return name[len(self._prefix) + 1 :].partition(".")[2]

    def _there(self, block: int, role: str) -> str:
        """Name of the site or module of a role in a block of either model."""
        return f"{self._prefix}.{block}.{role}" if role else f"{self._prefix}.{block}"

    @cached_property
    def _above(self) -> Mapping[str, set[str]]:
        """Roles of the sites that overrule each module of the second model."""
        found: dict[str, set[str]] = {}
        for site in self.space.inventory.parents:
            for module in (module for leaf in site.covers for module in modules_of(leaf)):
                found.setdefault(module, set()).add(self._role(site.name))
        return found

    def _overruled(self, block: int, module: str) -> bool:
        """Whether the plan overrules a matrix of the first model, judged by what covers it in the second."""
        return any(self.choices.get(self._there(block, role), KEEP) != KEEP for role in self._above.get(module, ()))

    def _source(self, site: Site, member: Member) -> tuple[Choice, Shape | None] | None:
        """Choice and shape of the counterpart of a matrix in the first model; None without a counterpart.

        The shape is None if the first model's sites are unknown.
        """
        if site.block is None:
            names = [member.module]
        else:
            alive = [other for other in self._near(site.block) if not self._overruled(other, member.module)]
            names = [self._there(other, self._role(member.module)) for other in alive]
        if self._members is None:
            return (self._by_module.get(names[0], KEEP), None) if names else None
        name = next((name for name in names if name in self._members), None)
        return (self._by_module.get(name, KEEP), self._members[name].shape) if name else None

    def _near(self, block: int) -> list[int]:
        others, blocks = self._blocks
        return by_depth(block, blocks, others)

    # -- what the second model takes --------------------------------------------------------------------

    def _left_out(self) -> dict[str, Choice]:
        """Blocks, attentions and feed-forward networks to leave out; at least one of each stays."""
        others, blocks = self._blocks
        found: dict[str, Choice] = {}
        gone: set[int] = set()
        for role in sorted(
            {self._role(site.name) for site in self.space.inventory.parents}
        ):  # blocks, whose role is empty, come first
            sites = {site.block: site for site in self.space.inventory.parents if self._role(site.name) == role}
            said = {other: self.choices.get(self._there(other, role), KEEP) for other in range(others)}
            there = [other for other, choice in said.items() if leaves_out(next(iter(sites.values())), choice)]
            places = same_share(there, others, blocks)
            most = blocks - len(gone) - 1
            fitting = [
                b
                for b in places
                if b not in gone and b in sites and said[there[0]] in self.space.options[sites[b].name]
            ][:most]
            found |= {sites[block].name: said[there[0]] for block in fitting}
            gone |= set(fitting) if not role else set()
        return found

    def _structure(self, site: Site) -> Choice | None:
        """Choice for an attention or feed-forward network as a whole; None if its leaves are decided on alone."""
        if site.kind == "block" or site.block is None:
            return None
        said = [
            (other, self.choices.get(self._there(other, self._role(site.name)), KEEP))
            for other in self._near(site.block)
        ]
        dropped = {other for other in range(self._blocks[0]) if self.choices.get(self._there(other, ""), KEEP) != KEEP}
        choice = next((choice for other, choice in said if other not in dropped and not leaves_out(site, choice)), KEEP)
        if choice == KEEP or site_fault(site, choice, self.space.target) is None:
            return None if choice == KEEP else choice
        alike = [option for option in self.space.options[site.name] if option.method == choice.method]
        return self._nearest(site, alike, _per_weight(site, choice), choice) if alike else None

    def _leaf(self, site: Site) -> Choice | None:
        """Choice for a leaf: of its matrices' choices the one with most weights. None without a counterpart."""
        options = self.space.options[site.name]
        if len(options) == 1:
            return options[0]
        found = [(member, source) for member in site.members if (source := self._source(site, member))]
        if not found:
            return None
        weights: dict[Choice, int] = {}
        for member, (choice, _) in found:
            weights[choice] = weights.get(choice, 0) + member.parameters
        most = max(weights, key=lambda choice: (weights[choice], str(choice)))
        member, (_, shape) = next((member, source) for member, source in found if source[0] == most)
        choice = _scaled(most, shape, member.shape) if shape else most
        wanted = _matrix_per_weight(member, most, shape or member.shape)
        fits = site_fault(site, choice, self.space.target) is None
        if fits and (shape is None or abs(_matrix_per_weight(member, choice, member.shape) - wanted) <= NEAR * wanted):
            return choice
        alike = {option: abs(_per_weight(site, option) - wanted) / wanted for option in options}
        own = [option for option, apart in alike.items() if apart <= NEAR and option.method == choice.method]
        used = [option for option, apart in alike.items() if apart <= FAR and option.method in self._methods]
        return self._nearest(site, own or used or options, wanted, choice)

    @staticmethod
    def _nearest(site: Site, options: Sequence[Choice], wanted: float, choice: Choice = KEEP) -> Choice:
        """The option nearest in bytes per weight; the choice's algorithm breaks ties."""
        algorithm = getattr(choice, "algorithm", None)
        return min(
            options,
            key=lambda o: (abs(_per_weight(site, o) - wanted), getattr(o, "algorithm", None) != algorithm, str(o)),
        )


def _scaled(choice: Choice, shape: Shape, other: Shape) -> Choice:
    """The choice with its rank scaled to the same share of full rank, in multiples of its factors' group size."""
    rank = getattr(choice, "rank", None)
    if rank is None or min(shape) == min(other):
        return choice
    wanted = rank * min(other) / min(shape)
    group = getattr(choice.then, "group_size", None)
    step = group if isinstance(group, int) else 1
    return choice.model_copy(update={"rank": max(1, round(wanted / step)) * step})


def _weights(site: Site, inventory: Inventory) -> int:
    leaves = [leaf for leaf in inventory.leaves if leaf.name in site.covers] if site.covers else [site]
    return sum(member.parameters for leaf in leaves for member in leaf.members)


def _per_weight(site: Site, choice: Choice) -> float:
    return site_bytes(site, choice) / sum(member.parameters for member in site.members)


def _matrix_per_weight(member: Member, choice: Choice, shape: Shape) -> float:
    return total_bytes(matrix_layout(choice, shape, member.dtype)) / (shape[0] * shape[1])
