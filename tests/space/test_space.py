"""The search space: which choices a site may take, by the rules of a study file."""

from __future__ import annotations

import pytest

from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import SpaceFile
from paredown.space.targets.target import targets
from shared import strategies, toys

INVENTORY = strategies.toy_inventory(2)
FEW = {"linear": ["quantize bits=4", "keep"], "ffn": ["prune-neurons sparsity=0.5"]}


def built(rules: list[dict[str, object]], choices: dict[str, list[str]] | None = None) -> Space:
    wishes = {"choices": {**toys.CHOICES, **(choices or {})}, "max_drops": 1, "at_least": rules}
    return Space.build(INVENTORY, targets["paredown"], SpaceFile.model_validate(wishes))


@pytest.mark.parametrize("bits", [1, 4.5, 8.5])
@pytest.mark.parametrize("pattern", ["layers.0.down", "re:layers.*(up|down)", "Linear"])
def test_every_plan_of_the_space_keeps_to_the_rule_and_no_other_is_lost(pattern: str, bits: float) -> None:
    """A matching leaf has the given bits, and so has the rule that overrides it; options that comply stay."""

    def matched(name: str) -> bool:
        ends = {
            "layers.0.down": ("0.down",),
            "re:layers.*(up|down)": ("up", "down"),
            "Linear": ("attention", "up", "down"),
        }[pattern]
        return name.endswith(ends)

    def keeps_to_it(plan: Plan) -> bool:
        for site, choice in plan.decided(INVENTORY):
            names = site.covers or (site.name,)
            alone = Plan.of(INVENTORY, {site.name: choice}).layout(INVENTORY)
            stored = sum(spec.size_bytes for name, spec in alone.items() if name.startswith(names))
            weights = sum(INVENTORY[name].members[0].parameters for name in names)
            if any(map(matched, names)) and 8 * stored < bits * weights:
                return False
        return True

    free, held = (
        set(toys.all_plans(built([], FEW))),
        set(toys.all_plans(built([{"match": pattern, "bits": bits}], FEW))),
    )
    assert held == {plan for plan in free if keeps_to_it(plan)}


def test_the_strictest_rule_counts() -> None:
    rules: list[dict[str, object]] = [{"match": "layers.0.up", "bits": 3}, {"match": "Linear", "bits": 10}]
    assert built(rules) == built(rules[1:]) == built(rules[::-1])


def test_a_rule_that_nothing_can_keep_to_is_refused() -> None:
    with pytest.raises(
        StudyError,
        match=r"layers.0.up has no choice of at least 9 bits per weight \(at_least\): its largest has 4.562; add one",
    ):
        built([{"match": "layers.0.up", "bits": 9}], {"linear": ["quantize bits=4"]})
    with pytest.raises(
        StudyError, match="no site matches 'layers.7.up'; `paredown inspect` lists the sites and classes"
    ):
        built([{"match": "layers.7.up", "bits": 4}])
    with pytest.raises(ValueError, match="greater than 0"):
        built([{"match": "layers.0.up", "bits": 0}])
