"""A plan of one model for another of its family."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from paredown.compressors.original.checkpoint import skeleton
from paredown.compressors.original.find_sites import walk
from paredown.search.outcome.plan_files import plan_file
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import site_layout
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile
from paredown.space.site import Inventory
from paredown.space.space import Space
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes
from paredown.space.transfer import by_depth, same_share, transferred
from shared import pico as families
from shared import strategies

TARGET = targets["paredown"]
TOYS = {blocks: Space.build(strategies.toy_inventory(blocks), TARGET) for blocks in (2, 3, 5, 8)}


def file_of(plan: Plan, inventory: Inventory, name: str = "models/first") -> PlanFile:
    reference = BaseModelReference(
        name=name, architecture=inventory.architecture, config_sha256="00", shapes_sha256=inventory.shapes_sha256()
    )
    return plan_file(plan, reference, "paredown", plan.size_bytes(inventory))


def llama(**changes: Any) -> Inventory:
    """A Llama on paper."""
    config = LlamaConfig(**{**families._GATED, "intermediate_size": 64, "tie_word_embeddings": True, **changes})
    config.architectures = ["LlamaForCausalLM"]
    return walk(skeleton(config), {}, "float32")


SMALL, LARGE = llama(), llama(hidden_size=64, num_hidden_layers=3, intermediate_size=172)


@given(strategies.plans(TOYS[3].inventory), st.booleans())
def test_a_model_of_the_same_names_and_shapes_takes_the_plan_unchanged(plan: Plan, known: bool) -> None:
    """A fine-tune, also one that is stored in another dtype, whether the first model is at hand or not."""
    inventory = TOYS[3].inventory
    assert transferred(file_of(plan, inventory), TOYS[3], inventory if known else None) == plan
    other = Space.build(strategies.toy_inventory(3, "float32"), TARGET)
    assert transferred(file_of(plan, inventory), other, inventory if known else None) == plan


@given(st.integers(1, 40), st.integers(1, 40))
def test_depth_is_kept(blocks: int, others: int) -> None:
    """The nearest middle of a block comes first; deeper blocks take no shallower ones; both ends meet.

    With equally many blocks, each is matched to itself.
    """
    nearest = [by_depth(block, blocks, others)[0] for block in range(blocks)]
    for block, chosen in enumerate(nearest):
        depths = [
            abs(Fraction(2 * block + 1, 2 * blocks) - Fraction(2 * other + 1, 2 * others)) for other in range(others)
        ]
        assert chosen == depths.index(min(depths))
    assert nearest == sorted(nearest)
    if blocks >= others:
        assert set(nearest) == set(range(others))
    if blocks == others:
        assert nearest == list(range(blocks))


@given(st.data())
def test_the_same_share_goes(data: st.DataObject) -> None:
    """As many as the share asks for, each once, none farther from those that went than one that stays.

    With equally many blocks, they are the same ones.
    """
    others, blocks = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    gone = data.draw(st.sets(st.integers(0, others - 1), max_size=others))
    places = same_share(gone, others, blocks)
    assert abs(Fraction(len(places), blocks) - Fraction(len(gone), others)) <= Fraction(1, 2 * blocks)
    assert len(set(places)) == len(places)
    if blocks == others:
        assert set(places) == gone
    if gone:
        middles = [Fraction(2 * other + 1, 2 * others) for other in gone]
        apart = [
            min(abs(Fraction(2 * block + 1, 2 * blocks) - middle) for middle in middles) for block in range(blocks)
        ]
        assert max([apart[block] for block in places], default=0) <= min(
            [apart[b] for b in range(blocks) if b not in places], default=1
        )
    assert sorted(same_share({1}, 4, 8)) == [2, 3]


def test_each_role_takes_what_it_has_at_its_depth() -> None:
    """Two blocks for five: the first three are nearer to the first, where the middle one is as near to both."""
    texts = {"embed": "quantize bits=8", "layers.0.attention": "quantize bits=2", "layers.0.up": "quantize bits=3"}
    texts |= {
        "layers.1.attention": "quantize bits=5",
        "layers.1.up": "quantize bits=6",
        "layers.1.down": "cluster clusters=16",
    }
    first, space = TOYS[2].inventory, TOYS[5]
    file = file_of(Plan.of(first, {site: parse_choice(text) for site, text in texts.items()}), first)
    for original in (first, None):
        found = {site: str(choice) for site, choice in transferred(file, space, original).entries}
        expected = {"embed": "quantize bits=8"}
        for block, other in enumerate([0, 0, 0, 1, 1]):
            for role in ("attention", "up", "down"):
                if text := texts.get(f"layers.{other}.{role}"):
                    expected[f"layers.{block}.{role}"] = text
        assert found == expected


@given(strategies.plans(TOYS[3].inventory), st.sampled_from([2, 5, 8]), st.booleans())
def test_whatever_the_depth_the_model_can_take_it(plan: Plan, blocks: int, known: bool) -> None:
    """The plan fits; as great a share of the blocks goes, at least one stays.

    Blocks that stay say nothing of blocks that go.
    """
    space = TOYS[blocks]
    found = transferred(file_of(plan, TOYS[3].inventory), space, TOYS[3].inventory if known else None)
    found.check(space.inventory, TARGET)
    assert found == Plan.of(space.inventory, found.choices)
    if known:
        count = len(plan.dropped(TOYS[3].inventory))
        assert len(found.dropped(space.inventory)) == min(int(Fraction(count * blocks, 3) + Fraction(1, 2)), blocks - 1)


def test_a_block_that_stays_learns_nothing_from_one_that_went() -> None:
    """Its leaves and its feed-forward network take what the nearest block has that stayed."""
    first, pruned = TOYS[2].inventory, parse_choice("prune-neurons sparsity=0.5")
    plan = Plan.of(
        first,
        {"layers.0": parse_choice("drop"), "layers.1.{up,down}": pruned, "layers.1.attention": parse_choice("cast")},
    )
    found = transferred(file_of(plan, first), TOYS[3], first)
    assert found.dropped(TOYS[3].inventory) == (0, 1)
    assert (found["layers.2.{up,down}"], found["layers.2.attention"]) == (pruned, parse_choice("cast"))
    texts = {"layers.1": "drop", "layers.2.{up,down}": str(pruned), "layers.2.attention": "cast"}
    plan = Plan.of(TOYS[8].inventory, {site: parse_choice(text) for site, text in texts.items()})
    found = transferred(file_of(plan, TOYS[8].inventory), TOYS[2], TOYS[8].inventory)
    assert found.dropped(TOYS[2].inventory) == ()
    assert (found["layers.0.{up,down}"], found["layers.0.attention"]) == (pruned, parse_choice("cast"))


def test_what_does_not_fit_becomes_what_is_nearest() -> None:
    """172 columns hold no groups of 64: the option of nearest bytes per weight is taken; ranks keep their share."""
    down, up, query = (f"model.layers.1.{name}" for name in ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj"))
    wanted = parse_choice("quantize bits=4 group_size=64 algorithm=gptq")
    lowrank = parse_choice("lowrank rank=16 then quantize bits=8 group_size=16")
    plan = Plan.of(SMALL, {down: wanted.model_copy(update={"group_size": "channel"}), up: wanted, query: lowrank})
    plan = Plan(tuple((site, wanted if site == down else choice) for site, choice in plan.entries))
    space = Space.build(LARGE, TARGET)
    found = transferred(file_of(plan, SMALL), space, SMALL)
    site = LARGE["model.layers.2.mlp.down_proj"]
    per_weight = total_bytes(site_layout(SMALL[down], wanted)) / (64 * 32)
    alike = [option for option in space.options[site.name] if option.method == "quantize"]
    gaps = {option: abs(total_bytes(site_layout(site, option)) / (172 * 64) - per_weight) for option in alike}
    assert gaps[found[site.name]] == min(gaps.values())
    assert found["model.layers.2.self_attn.q_proj"] == parse_choice(
        "lowrank rank=32 then quantize bits=8 group_size=16"
    )


def test_what_the_first_model_lacks_becomes_the_mean() -> None:
    """An untied head that the smaller model lacks takes the option nearest to the bytes per weight of all else."""
    untied = Space.build(llama(num_hidden_layers=3, tie_word_embeddings=False), TARGET)
    bits = parse_choice("quantize bits=3 group_size=16")
    plan = Plan.of(SMALL, {site.name: bits for site in SMALL.leaves})
    found = transferred(file_of(plan, SMALL), untied, SMALL)
    head = untied.inventory["lm_head"]
    sizes = {option: total_bytes(site_layout(head, option)) for option in untied.options["lm_head"]}
    wanted = total_bytes(site_layout(head, bits))
    assert abs(sizes[found["lm_head"]] - wanted) == min(abs(size - wanted) for size in sizes.values())


def test_another_family_is_refused(inventory: Callable[[str], Inventory]) -> None:
    plan = Plan.of(SMALL, {"model.embed_tokens": parse_choice("cast")})
    with pytest.raises(
        PlanError, match=r"made for LlamaForCausalLM .* the model is GPT2LMHeadModel: another family; give a model"
    ):
        transferred(file_of(plan, SMALL), Space.build(inventory("gpt2"), TARGET), SMALL)


@pytest.mark.parametrize(
    ("site", "text", "expected"),
    [
        ("self_attn.q_proj", "vector-quantize centroids=256", "quantize bits=5 group_size=16 algorithm=gptq"),
        ("mlp.up_proj", "vector-quantize centroids=128", "vector-quantize centroids=32"),
        ("mlp.up_proj", "vector-quantize centroids=64", "quantize bits=2 group_size=16 algorithm=gptq"),
    ],
)
def test_codebooks_that_would_weigh_too_much_are_left_behind(site: str, text: str, expected: str) -> None:
    """In a matrix of a quarter of the weights they take far more bytes a weight.

    What takes as many as they did is taken instead: of the same method if that is near, else of one that the plan uses;
    where the first model's shapes are not known, nothing can be said.
    """
    vectors, other = parse_choice(text), parse_choice("quantize bits=4 group_size=16")
    plan = Plan.of(
        LARGE, {s.name: vectors if s.name.endswith(site) else other for s in LARGE.leaves if s.kind == "linear"}
    )
    space, name = Space.build(SMALL, TARGET), f"model.layers.1.{site}"
    (rows, columns), (fewer, shorter) = (inventory[name].members[0].shape for inventory in (LARGE, SMALL))
    before = total_bytes(site_layout(LARGE[name], vectors)) / (rows * columns)
    sizes = {
        option: total_bytes(site_layout(SMALL[name], option)) / (fewer * shorter) for option in space.options[name]
    }
    assert sizes[vectors] > 1.1 * before
    found = transferred(file_of(plan, LARGE), space, LARGE)[name]
    assert str(found) == expected
    assert abs(sizes[found] - before) == min(
        abs(size - before) for option, size in sizes.items() if option.method == found.method
    )
    assert transferred(file_of(plan, LARGE), space)[name] == vectors


def test_one_block_stays() -> None:
    """Seven of eight blocks are more than half of the last one of two."""
    drop, first = parse_choice("drop"), TOYS[8].inventory
    plan = Plan.of(first, {f"layers.{block}": drop for block in range(8) if block != 3})
    assert transferred(file_of(plan, first), TOYS[2], first).dropped(TOYS[2].inventory) in ((0,), (1,))
