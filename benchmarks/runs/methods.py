"""Every method at a few settings on one model: bytes, held-out loss, compression time and the kernel that runs it.

    python -m benchmarks.runs.methods --model studies/models/demo --out runs/benchmark-methods

A setting applies to every site of its kind. The other linear layers are kept; the embedding is quantized to 8 bits in
groups of 64 throughout. Times are for compression on one thread, without the statistics. Exits 1 if an expectation
fails.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import paredown  # noqa: F401 - registers the methods
from docs.generate.what_runs_where import runs_as
from paredown.evaluators.comparison import Ratio, ratio
from paredown.evaluators.quality import Quality
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import Choice, parse_choice
from paredown.space.layouts import site_fault
from paredown.space.plan import Plan
from paredown.space.site import Kind
from paredown.space.study_file import SpaceFile, StudyFile, Tokens

EMBEDDING = "quantize bits=8 group_size=64"
ROUNDED = "then quantize bits=4 group_size=32"
SETTINGS: dict[Kind, list[str]] = {
    "linear": [
        *(
            f"quantize bits={bits} group_size=64 algorithm={algorithm}"
            for bits in (3, 4)
            for algorithm in (
                "round-to-nearest",
                "search",
                "hqq symmetric=false",
                "gptq",
                "gptq symmetric=false",
                "coordinate-descent",
            )
        ),
        "quantize bits=4 group_size=64 algorithm=nf4",
        *(f"prune sparsity=0.5 algorithm={algorithm} {ROUNDED}" for algorithm in ("magnitude", "wanda", "sparsegpt")),
        *(
            f"prune sparsity=0.5 pattern=2:4 algorithm={algorithm} {ROUNDED}"
            for algorithm in ("magnitude", "wanda", "sparsegpt")
        ),
        *(f"cluster clusters={clusters} weighting={w}" for clusters in (8, 16) for w in ("none", "inputs", "fisher")),
        *(f"vector-quantize centroids={centroids}" for centroids in (16, 64)),
        *(f"lowrank rank_fraction=0.3333 algorithm={algorithm}" for algorithm in ("svd", "whitened")),
        "lowrank rank_fraction=0.3333 algorithm=whitened then quantize bits=8",
        "lowrank-residual rank=8 algorithm=whitened then quantize bits=3 group_size=64 algorithm=gptq",
    ],
    "ffn": [
        *(
            f"prune-neurons sparsity=0.25 algorithm={algorithm}"
            for algorithm in ("magnitude", "activation", "reconstruct")
        ),
        "prune-neurons sparsity=0.25 algorithm=reconstruct then quantize bits=4 group_size=32 algorithm=gptq",
        "awq then quantize bits=3 group_size=64",
    ],
    "attention": [
        *(
            f"prune-heads sparsity=0.5 algorithm={algorithm}"
            for algorithm in ("magnitude", "activation", "reconstruct")
        ),
        "awq then quantize bits=3 group_size=64",
    ],
}

EXPECTED = [
    ("quantize bits=3 group_size=64 algorithm=gptq", "quantize bits=3 group_size=64 algorithm=round-to-nearest", 0.6),
    ("lowrank rank_fraction=0.3333 algorithm=whitened", "lowrank rank_fraction=0.3333 algorithm=svd", 0.8),
    (f"prune sparsity=0.5 algorithm=wanda {ROUNDED}", f"prune sparsity=0.5 algorithm=magnitude {ROUNDED}", 1.0),
]
"""Greatest allowed ratio of the first setting's loss to the second's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The measurement of one setting."""

    kind: Kind
    choice: Choice
    size_bytes: int
    quality: Quality
    seconds: float


def measured(bench: Workbench, kind: Kind, text: str, name: str) -> Row:
    """Compresses every site of the kind that takes the choice, and measures the plan."""
    choice, inventory = parse_choice(text), bench.space.inventory
    sites = [site for site in inventory.sites if site.kind == kind and not site_fault(site, choice, bench.space.target)]
    if not sites:
        raise SystemExit(f"no {kind} site takes '{text}'")
    embedding = {site.name: parse_choice(EMBEDDING) for site in inventory.leaves if site.kind == "embedding"}
    canonical = {site.name: choice.canonical(site.members[0].shape) if site.is_leaf else choice for site in sites}
    plan = Plan.of(inventory, {**embedding, **canonical})
    for site in sites:  # charge shared factorisations to each setting that uses them
        for member in site.members:
            bench.bank.statistics[member.module].derived.clear()
    started = time.perf_counter()
    for site in sites:
        bench.bank.tensors(site, canonical[site.name])
    seconds = time.perf_counter() - started
    return Row(
        kind=kind,
        choice=choice,
        size_bytes=plan.size_bytes(inventory),
        quality=bench.evaluator.measure(plan, name),
        seconds=seconds,
    )


def line(row: Row) -> str:
    """One line of the table."""
    cells = [
        f"`{row.choice}`",
        row.kind,
        f"{row.size_bytes:,}",
        f"{row.quality.mean:.5f}",
        f"{row.seconds:.1f}",
        runs_as(row.choice),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--data", nargs="+", default=["stdlib"])
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmark-methods"), help="folder of the bank, which is emptied first"
    )
    parser.add_argument("--calibration", type=int, default=Tokens().calibration, help="tokens", metavar="TOKENS")
    parser.add_argument("--held-out", type=int, default=32768, help="tokens", metavar="TOKENS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(options.out / "bank", ignore_errors=True)
    tokens = Tokens(calibration=options.calibration, held_out=options.held_out)
    fisher = SpaceFile.model_validate({"choices": {"linear": ["keep", "cluster clusters=8 weighting=fisher"]}})
    study = StudyFile(model=options.model, data=options.data, latency="off", tokens=tokens, space=fisher)
    bench = Workbench.open(study, options.out / "bank", workers=1)
    machine = environment()
    print(f"{options.model}, embedding in every row: {EMBEDDING}; {machine['cpu']}, 1 thread, torch {machine['torch']}")
    print(
        f"calibration {tokens.calibration} tokens, loss on {tokens.held_out} held-out tokens [nats/token], "
        "each matrix compressed independently\n"
    )
    print(
        "| choice | sites | bytes | held-out loss | s | runs as in target paredown |\n"
        "| --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    rows = {}
    for kind, settings in SETTINGS.items():
        for text in settings:
            rows[text] = measured(bench, kind, text, "held-out")
            print(line(rows[text]), flush=True)
    print()
    failures = 0
    for ours, theirs, limit in EXPECTED:
        found: Ratio = ratio(rows[ours].quality, rows[theirs].quality)
        failures += found.mean > limit
        print(
            f"{ours}\n  relative to {theirs}: {found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], "
            f"expected at most {limit}"
        )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
