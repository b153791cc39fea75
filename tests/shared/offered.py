"""The choices that the laws of methods are tested on."""

from __future__ import annotations

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.space.choice import Choice, methods, parse_choice
from paredown.space.site import Member, Site

COMPOSITIONS = [
    "lowrank rank=3",
    "lowrank rank=1 then quantize bits=8",
    "lowrank rank=3 then lowrank rank=2 then cast",
    "lowrank rank=2 then prune sparsity=0.5 then cluster clusters=5",
    "lowrank rank_fraction=0.4 algorithm=whitened then quantize bits=4 algorithm=gptq",
    "lowrank-residual rank=1 then quantize bits=3",
    "lowrank-residual rank=3 factor_bits=16 algorithm=whitened rounds=2 "
    "then quantize bits=4 group_size=43 algorithm=gptq",
    "lowrank-residual rank=2 rounds=0 then lowrank rank=1",
    "vector-quantize centroids=9 dimensions=4",
    "vector-quantize centroids=40",
    "vector-quantize centroids=2 dimensions=8",
    "prune sparsity=0.5",
    "prune sparsity=0.6 then quantize bits=3 symmetric=false",
    "prune sparsity=0.3 then lowrank rank=1",
    "quantize bits=4 group_size=43",
    "quantize bits=5 group_size=4 symmetric=false algorithm=round-to-nearest",
    "quantize bits=6 algorithm=round-to-nearest",
    "quantize bits=4 group_size=16 algorithm=nf4",
    "quantize bits=4 algorithm=nf4",
    "quantize bits=3 symmetric=false algorithm=hqq",
    "quantize bits=2 group_size=4 symmetric=false algorithm=hqq",
    *(
        f"quantize bits={bits} group_size={group} symmetric={symmetric} algorithm={algorithm}"
        for algorithm in ("gptq", "coordinate-descent")
        for bits, group, symmetric in [(2, 4, "false"), (3, 16, "true"), (5, 43, "true"), (8, "channel", "false")]
    ),
    "lowrank rank=2 then quantize bits=4 algorithm=gptq",
    "prune sparsity=0.5 pattern=2:4",
    "prune sparsity=0.5 algorithm=sparsegpt",
    "prune sparsity=0.75 pattern=1:4 algorithm=wanda then quantize bits=4",
    "prune sparsity=0.5 pattern=4:8 algorithm=sparsegpt then cluster clusters=5 weighting=fisher",
    "cluster clusters=5 rows=3 weighting=inputs",
    "cluster clusters=9 weighting=fisher",
    "cluster clusters=16 rows=1",
    "cluster clusters=2",
    "cluster clusters=3",
    "cluster clusters=256",
]
FFN = [
    "prune-neurons sparsity=0.5",
    "prune-neurons sparsity=0.25 then lowrank rank=2 then quantize bits=4",
    "prune-neurons sparsity=0.9 then cast",
    "prune-neurons sparsity=0.5 algorithm=activation then quantize bits=4 algorithm=gptq",
    "prune-neurons sparsity=0.5 algorithm=reconstruct",
    "awq alpha=0.5",
    "awq then quantize bits=4 group_size=16",
    "awq then quantize bits=3 algorithm=gptq",
]
ATTENTION = [
    "prune-heads sparsity=0.5",
    "prune-heads sparsity=0.5 algorithm=activation then cast",
    "prune-heads sparsity=0.5 algorithm=reconstruct then quantize bits=4 algorithm=gptq",
    "awq alpha=0.5",
    "awq then quantize bits=4 group_size=16",
]
WRITTEN = {"ffn": FFN, "attention": ATTENTION, "block": ["drop"]}


def offered(kind: str) -> list[Choice]:
    """What the methods put into the default space, for usual and for awkward shapes, and the compositions."""
    members = [
        Member(module="m", shape=shape, dtype=dtype)
        for shape in [(64, 128), (96, 172), (64, 64)]
        for dtype in ("float32", "bfloat16")
    ]
    offers = [
        choice
        for name in methods
        if kind in methods[name].kinds
        for member in members
        for choice in methods[name].offers(member, kind)
    ]
    return list(dict.fromkeys([*offers, *map(parse_choice, COMPOSITIONS if kind == "linear" else ())]))


def offered_to(site: Site) -> list[Choice]:
    """The same for a site whose structure may change."""
    offers = [
        choice for name in methods if site.kind in methods[name].kinds for choice in methods[name].site_offers(site)
    ]
    return list(dict.fromkeys([*offers, *map(parse_choice, WRITTEN[site.kind])]))
