"""Overhead of a trial beside its forward passes: swap, bookkeeping and storage, as a share of them.

    python -m benchmarks.runs.trial --model studies/models/demo

Runs real trials (`Race`, `TrialLog`, `PlannedModel.swap`, `Teacher.measure`) on a real database in a temporary
folder. A busy machine changes a share less than a time. Exits 1 if a share is above the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import paredown  # noqa: F401 - registers the methods
from benchmarks.overhead import PARTS, Overhead, measure_overhead, prepared
from paredown.search.workbench.environment import environment
from paredown.space.budget import Budget
from paredown.space.study_file import StudyFile, Tokens


def quartiles(values: Sequence[float], unit: str, factor: float) -> str:
    """Median and quartiles as text."""
    low, middle, high = np.quantile(np.asarray(values) * factor, [0.25, 0.5, 0.75])
    return f"{middle:.2f} {unit} (quartiles {low:.2f} to {high:.2f})"


def show(overhead: Overhead) -> None:
    """Prints every part and the shares."""
    for part in PARTS:
        seconds = overhead.seconds[part]
        print(f"  {part:<16} {quartiles(seconds[:-1], 'ms', 1e3)}; full swap {1e3 * seconds[-1]:.2f} ms")
    print(f"share, ten sites or fewer: {quartiles(overhead.shares[:-1], '%', 100)}")
    print(f"share, full swap: {100 * overhead.shares[-1]:.2f} %")
    print(f"the sampler's own proposal, not in the share: {quartiles(overhead.proposals, 'ms', 1e3)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--trials", type=int, default=50, help="trials that change ten sites or fewer")
    parser.add_argument("--tokens", type=int, default=Tokens().search, help="search tokens that every trial reads")
    parser.add_argument("--budget", default="45%", help="budget of the plan that the trials start from")
    parser.add_argument("--no-latency", action="store_true", help="no latency objective and no latency table")
    parser.add_argument("--limit", type=float, default=0.15, help="greatest allowed share")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="parent of the temporary folder; must be on a disk, not in memory"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    latency = "off" if options.no_latency else "measure"
    tokens = Tokens(search=options.tokens, calibration=1024, selection=512, held_out=512)
    study = StudyFile(model=options.model, budget=Budget.parse(options.budget), latency=latency, tokens=tokens)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".benchmark-") as name:
        bench, problem = prepared(study, Path(name))
        overhead = measure_overhead(bench, problem, Path(name), options.trials)
    machine, inventory, read = environment(), bench.space.inventory, int(bench.texts.sequences["search"].mask.sum())
    print(
        f"{options.model}: {inventory.parameters:,} parameters, {len(inventory.leaves)} matrices; "
        f"{read:,} tokens, float32, 1 thread"
    )
    print(
        f"{machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}; "
        f"optuna {machine['optuna']}, SQLite, synchronous=FULL"
    )
    print(
        f"timed: {options.trials} trials that change 1 to 10 sites each, after an uncounted first trial; "
        "then one full swap"
    )
    print(
        "overhead: the trial without its forward passes: "
        "ask, swap, decoding from the bank, logging, latency prediction, tell"
    )
    print("at the start nothing is decoded, as when a study resumes in a new process")
    show(overhead)
    return int(max(float(np.median(overhead.shares[:-1])), overhead.shares[-1]) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
