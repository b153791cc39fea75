"""The search against uniform plans of the same bytes, on held-out documents, over several seeds.

    python scripts/benchmark_uniform.py --model studies/models/demo --out runs/benchmark-uniform

For each bit-width the budget is the size of the uniform plan of groups of 64, to the byte; the embedding is pinned to 8 bits in
groups of 64 for both. The same command goes on after an interruption. Exits 1 where the upper end of an interval is above the
limit.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import paredown  # noqa: F401 - registers the methods
from paredown.evaluators.comparison import ratio
from paredown.progress import Silent
from paredown.search.session import Session
from paredown.search.uniform import UniformPlan, uniform_plan
from paredown.search.workbench import Workbench, environment
from paredown.space.choice import parse_choice
from paredown.space.study_file import Override, SpaceFile, StudyFile, Tokens

EMBEDDING = "quantize bits=8 group_size=64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """A search's winner against the uniform plan that gave it its budget."""

    bits: int
    seed: int
    budget_bytes: int
    winner_bytes: int
    winner: float
    uniform: float
    mean: float
    low: float
    high: float
    trials: int
    documents: int
    seconds: float


def fight(study: StudyFile, bits: int, uniform: UniformPlan, folder: Path, bench: Workbench) -> Duel:
    """Searches within the uniform plan's bytes; winner and uniform plan on the same held-out documents."""
    outcome = Session(study, folder, Silent(), bench.bank.folder).run()
    best = outcome.best
    if best is None:
        raise SystemExit(f"{folder}: no trial fits {uniform.size_bytes} bytes; give more --trials")
    if not any(record.plan == uniform.plan for record in outcome.records):
        raise SystemExit(f"{folder}: the uniform plan was not among {len(outcome.records)} trials; give more --trials")
    ours, theirs = (bench.measure(plan, "held-out") for plan in (best.plan, uniform.plan))
    found = ratio(ours, theirs, seed=study.seed)
    return Duel(
        bits=bits,
        seed=study.seed,
        budget_bytes=outcome.budget_bytes,
        winner_bytes=best.size_bytes,
        winner=ours.mean,
        uniform=theirs.mean,
        mean=found.mean,
        low=found.low,
        high=found.high,
        trials=len(outcome.records),
        documents=found.documents,
        seconds=sum(outcome.seconds.values()),
    )


def row(duel: Duel) -> str:
    """A line of the table."""
    cells = [duel.bits, duel.seed, f"{duel.budget_bytes:,}", f"{duel.winner_bytes:,}", f"{duel.winner:.5f}", f"{duel.uniform:.5f}"]
    return "| " + " | ".join(map(str, [*cells, f"{duel.mean:.3f} [{duel.low:.3f}, {duel.high:.3f}]", f"{duel.seconds:.0f}"])) + " |"


def main() -> int:
    default = Tokens()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--data", nargs="+", default=["stdlib"])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-uniform"), help="study folders; the same one goes on")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sampler", default="frontier")
    for name in ("calibration", "search", "selection", "held_out"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name), help="tokens", metavar="TOKENS")
    parser.add_argument("--limit", type=float, default=0.75, help="largest upper end of a 95 %% interval that passes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = Tokens(calibration=options.calibration, search=options.search, selection=options.selection, held_out=options.held_out)
    plain = StudyFile(model=options.model, data=options.data, sampler=options.sampler, trials=options.trials, latency="off", tokens=tokens)
    pinned = SpaceFile(overrides=[Override(match="Embedding", choices=[EMBEDDING])])
    bench = Workbench(plain.model_copy(update={"space": pinned}), options.out / "bank")
    machine = environment()
    print(f"{options.model}, target paredown, embedding pinned to {EMBEDDING}; {machine['cpu']}, 1 thread, torch {machine['torch']}")
    print(f"tokens: {tokens}; latency off; interval: paired bootstrap over held-out documents")
    print("\n| bits | seed | budget [bytes] | winner [bytes] | winner [nats/token] | uniform [nats/token] | ratio, 95 % | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    duels = []
    for bits in options.bits:
        uniform = uniform_plan(bench.space, bits, 64, parse_choice(EMBEDDING))
        for seed in options.seeds:
            study = plain.model_copy(update={"space": pinned, "budget": f"{uniform.size_bytes}B", "seed": seed})
            duels.append(fight(study, bits, uniform, options.out / f"{bits}-bit-seed-{seed}", bench))
            print(row(duels[-1]), flush=True)
    worst = max(duel.high for duel in duels)
    print(f"\n{duels[0].documents} held-out documents, {duels[0].trials} trials each; largest upper end {worst:.3f}, limit {options.limit}")
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
