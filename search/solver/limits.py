"""Limits on a plan besides its bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.choice import KEEP, Choice
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.space import Space

if TYPE_CHECKING:
    from paredown.evaluators.latency import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limit:
    """Upper limit on a cost that adds up over a plan's choices.

    Attributes:
        name: Name of the cost with its unit: ``decode_ms``, ``resident_bytes``, ``kv_bytes_per_token``.
        most: Most cost of a plan.
        costs: Cost of every (site, choice) of a space; the cost of a site that overrules leaves replaces theirs.
        fixed: Cost that every plan has.

    Raises:
        StudyError: If a number is not finite.
    """

    name: str
    most: float
    costs: Mapping[tuple[str, Choice], float]
    fixed: float = 0.0

    def __post_init__(self) -> None:
        wrong = [f"{site}: {choice}" for (site, choice), cost in self.costs.items() if not math.isfinite(cost)]
        if wrong or not math.isfinite(self.most + self.fixed):
            raise StudyError(
                f"limit {self.name} has a number that is not finite ({', '.join(wrong[:3]) or 'most or fixed'}); "
                "leave it out"
            )

    def allows(self, plan: Plan, inventory: Inventory) -> bool:
        """Whether a plan keeps to the limit; false if it takes a choice of unknown cost."""
        decided = [(site.name, choice) for site, choice in plan.decided(inventory)]
        return (
            all(pair in self.costs for pair in decided)
            and self.fixed + sum(self.costs[pair] for pair in decided) <= self.most
        )


def check_decoding(inventory: Inventory) -> None:
    """Checks that a model decodes tokens, so that decoding time can be limited.

    Raises:
        StudyError: If it does not.
    """
    if not inventory.causal:
        raise StudyError(f"{inventory.architecture} decodes no tokens; leave max_decode_ms out")


def decode_limit(space: Space, table: LatencyTable, most_ms: float) -> Limit:
    """Limit on the predicted time of a decoded token on the target [ms].

    Raises:
        StudyError: If the model does not decode tokens, or the table was made for another space.
    """
    inventory = space.inventory
    check_decoding(inventory)
    kept = {site.name: table.site_ms(site, KEEP)[0] for site in inventory.leaves}

    def cost(site: Site, choice: Choice) -> float:
        if site.kind == "block":
            return table.site_ms(site, choice)[0] - table.per_block_ms[0]
        if space.target.decompresses:
            return sum(kept[leaf] for leaf in site.covers or (site.name,))
        return table.site_ms(site, choice)[0]

    blocks = sum(site.kind == "block" for site in inventory.parents)
    costs = {(site.name, choice): cost(site, choice) for site in inventory.sites for choice in space.options[site.name]}
    return Limit(name="decode_ms", most=most_ms, costs=costs, fixed=table.per_block_ms[0] * blocks)
