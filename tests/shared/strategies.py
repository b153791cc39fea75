"""What hypothesis draws: choices, inventories and codes, with awkward shapes and ties likely."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member, Site
from paredown.space.targets.target import targets
from paredown.space.tensors import TensorSpec

BITS = (2, 3, 4, 5, 6, 8)


def _quantize(algorithms: list[str]) -> st.SearchStrategy[Choice]:
    return st.builds(
        lambda bits, group, symmetric, algorithm: parse_choice(
            {"method": "quantize", "bits": bits, "group_size": group, "symmetric": symmetric, "algorithm": algorithm}
        ),
        st.sampled_from(BITS),
        st.sampled_from(["channel", 4, 16, 32, 64]),
        st.booleans(),
        st.sampled_from(algorithms),
    )


quantize = _quantize(["search", "round-to-nearest", "hqq"])
calibrated = _quantize(["gptq", "coordinate-descent"])
cluster = st.builds(
    lambda clusters, rows: parse_choice({"method": "cluster", "clusters": clusters, "rows": rows}),
    st.integers(2, 256),
    st.sampled_from(["all", 1, 3]),
)
cast = st.just(parse_choice("cast"))


def _then(first: dict[str, object], then: Choice | None) -> Choice:
    return parse_choice({**first, "then": then.to_mapping()} if then else first)


last = st.one_of(st.none(), quantize, cluster, cast)
lowrank = st.builds(lambda rank, then: _then({"method": "lowrank", "rank": rank}, then), st.integers(1, 20), last)
lowrank_residual = st.builds(
    lambda rank, rounds, then: _then({"method": "lowrank-residual", "rank": rank, "rounds": rounds}, then),
    st.integers(1, 20),
    st.integers(0, 2),
    st.one_of(quantize, cluster, cast),
)
vector_quantize = st.builds(
    lambda dimensions, centroids: parse_choice(
        {"method": "vector-quantize", "dimensions": dimensions, "centroids": centroids}
    ),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([2, 9, 40]),
)
prune = st.builds(
    lambda knobs, then: _then({"method": "prune", **knobs}, then),
    st.one_of(
        st.floats(0.01, 0.99).map(lambda sparsity: {"sparsity": sparsity}),
        st.sampled_from(
            [
                {"sparsity": 0.75, "pattern": "1:4"},
                {"sparsity": 0.5, "pattern": "2:4"},
                {"sparsity": 0.5, "pattern": "4:8"},
            ]
        ),
    ),
    last,
)
prune_neurons = st.builds(
    lambda sparsity, then: _then({"method": "prune-neurons", "sparsity": sparsity}, then), st.floats(0.2, 0.9), last
)
linear_choices = st.one_of(st.just(KEEP), quantize, cluster, cast, lowrank, lowrank_residual, prune)
choices = st.one_of(linear_choices, prune_neurons, st.just(parse_choice("drop")))

shapes = st.tuples(st.sampled_from([1, 2, 5, 32]), st.sampled_from([1, 3, 16, 43, 64, 172]))


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    """Matrices of awkward shapes: normal, constant, zero, with a heavy tail, or of few values."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = draw(shapes)
    normal = torch.randn(shape, generator=generator)
    kinds = [normal, normal**3, normal.round(), torch.zeros(shape), torch.full(shape, -0.3), normal * 1e-6]
    return draw(st.sampled_from(kinds)).contiguous()


@st.composite
def codes(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Codes of a bit-width in [1, 8], and the bit-width."""
    bits = draw(st.integers(1, 8))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 130))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.int32), bits


def toy_inventory(blocks: int = 2, dtype: str = "bfloat16") -> Inventory:
    """A model on paper: an embedding, blocks of attention and a feed-forward network, norms; no weights."""
    embedding = Site(
        name="embed",
        kind="embedding",
        block=None,
        members=(Member(module="embed", shape=(96, 32), dtype=dtype, class_name="Embedding", tied=("head",)),),
    )
    leaves, parents = [embedding], []
    for index in range(blocks):
        start = f"layers.{index}"
        attention = Member(module=f"{start}.attention", shape=(32, 32), dtype=dtype, bias=TensorSpec(dtype, (32,)))
        up, down = (
            Member(module=f"{start}.{name}", shape=shape, dtype=dtype)
            for name, shape in (("up", (64, 32)), ("down", (32, 64)))
        )
        inside = [Site(name=m.module, kind="linear", block=index, members=(m,)) for m in (attention, up, down)]
        leaves += inside
        parents += [
            Site(
                name=f"{start}.{{up,down}}",
                kind="ffn",
                block=index,
                members=(up, down),
                covers=(up.module, down.module),
            ),
            Site(
                name=start,
                kind="block",
                block=index,
                members=(),
                covers=tuple(site.name for site in inside),
                rest={f"{start}.norm.weight": TensorSpec(dtype, (32,))},
            ),
        ]
    return Inventory(architecture="Toy", sites=(*leaves, *parents), rest={"norm.weight": TensorSpec(dtype, (32,))})


@st.composite
def plans(draw: st.DrawFn, inventory: Inventory) -> Plan:
    """Plans that the inventory takes, dropped blocks and overruled choices included."""
    drawn: dict[str, Choice] = {}
    for site in inventory.sites:
        if site.kind == "block":
            choice = draw(st.sampled_from([KEEP, KEEP, parse_choice("drop")]))
        elif site.kind == "ffn":
            choice = draw(st.one_of(st.just(KEEP), st.just(KEEP), prune_neurons))
        else:
            choice = draw(linear_choices)
        drawn[site.name] = choice if site_fault(site, choice, targets["paredown"]) is None else KEEP
    if all(drawn[site.name] != KEEP for site in inventory.parents if site.kind == "block"):
        drawn[inventory.parents[-1].name] = KEEP
    return Plan.of(inventory, drawn)
