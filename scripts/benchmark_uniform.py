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
from paredown.evaluators.comparison import Ratio, ratio
from paredown.evaluators.quality import Quality
from paredown.progress import Silent
from paredown.search.outcome import Outcome
from paredown.search.record import Record
from paredown.search.session import Session
from paredown.search.uniform import UniformPlan, uniform_plan
from paredown.search.workbench import Workbench, environment
from paredown.space.choice import parse_choice
from paredown.space.study_file import Override, SpaceFile, StudyFile, Tokens

EMBEDDING = "quantize bits=8 group_size=64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """A search's winner against the uniform plan that gave it its budget, on the same held-out documents."""

    bits: int
    outcome: Outcome
    best: Record
    winner: Quality
    uniform: Quality
    ratio: Ratio


def fight(study: StudyFile, bits: int, uniform: UniformPlan, folder: Path, bench: Workbench) -> Duel:
    """Searches within the uniform plan's bytes, and measures winner and uniform plan."""
    outcome = Session(study, folder, Silent(), bench.bank.folder).run()
    best = outcome.best
    if best is None:
        raise SystemExit(f"{folder}: no trial fits {uniform.size_bytes} bytes; give more --trials")
    if not any(record.plan == uniform.plan for record in outcome.records):
        raise SystemExit(f"{folder}: the uniform plan was not among {len(outcome.records)} trials; give more --trials")
    ours, theirs = (bench.measure(plan, "held-out") for plan in (best.plan, uniform.plan))
    return Duel(bits=bits, outcome=outcome, best=best, winner=ours, uniform=theirs, ratio=ratio(ours, theirs, seed=study.seed))


def row(duel: Duel) -> str:
    """A line of the table."""
    outcome, found = duel.outcome, duel.ratio
    cells = [duel.bits, outcome.seed, f"{outcome.budget_bytes:,}", f"{duel.best.size_bytes:,}"]
    cells += [f"{duel.winner.mean:.5f}", f"{duel.uniform.mean:.5f}"]
    cells += [f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]", f"{sum(outcome.seconds.values()):.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


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
    worst = max(duel.ratio.high for duel in duels)
    documents, trials = duels[0].ratio.documents, len(duels[0].outcome.records)
    print(f"\n{documents} held-out documents, {trials} trials each; largest upper end {worst:.3f}, limit {options.limit}")
    return int(worst > options.limit)


if __name__ == "__main__":
    sys.exit(main())
