"""Samplers on one problem at equal cost, in forward passes over its search set.

    OMP_NUM_THREADS=1 python scripts/benchmark_search.py studies/problems/quantization.yaml

With a true front beside the problem (NAME.front.json, made by scripts/enumerate_plans.py): the share of its hypervolume after 32, 64
and 128 evaluations. Otherwise the least loss within the problem's budget, over the best that any engine found. Sensitivities count:
in forward passes, a backward pass as two. Samplers of others start cold, the `-solver` and `-warm` ones from what the study gives.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import paredown  # noqa: F401 - registers the methods
from paredown.search.contest import Contest, Run, Truth, points_of
from paredown.search.workbench import Workbench, environment
from paredown.space.budget import Budget
from paredown.space.files import write_atomically
from paredown.space.study_file import StudyFile

SEEDED = ("frontier", "evopress-solver")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, help="a study file")
    parser.add_argument("--model", help="another model than the file's")
    parser.add_argument("--data", nargs="+", help="other texts than the file's")
    parser.add_argument("--front", type=Path, help="the true front, by default NAME.front.json beside the problem")
    parser.add_argument("--engines", nargs="+", default=["frontier", "evopress", "amq", "nsga2", "tpe", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluations", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--csv", type=Path, help="every run, for pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = {key: value for key, value in (("model", options.model), ("data", options.data)) if value}
    study = StudyFile.read(options.problem).model_copy(update=changes)
    path = options.front or options.problem.with_suffix(".front.json")
    truth = Truth(front=tuple(map(tuple, json.loads(path.read_text())["front"]))) if path.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(study, Path(folder) / "bank")
        bench.fill_bank()
        contest = Contest(bench)
        inventory, machine = bench.space.inventory, environment()
        budget = Budget.parse(study.budget).bytes_of(inventory.original_bytes, inventory.parameters)
        print(f"{options.problem.name}, {study.model}: {len(bench.space.searched)} sites; {machine['cpu']}, torch {machine['torch']}")
        print(f"an evaluation: {study.tokens.search} tokens forward, 1 thread; sensitivities: {contest.sensitivity_cost:.1f} of them")
        runs: dict[str, list[Run]] = {}
        for name in options.engines:
            for seed in options.seeds:
                most = max(options.evaluations)
                run = contest.run(name, evaluations=most, budget_bytes=budget, seed=seed, focus=study.focus, seeded=name in SEEDED)
                runs.setdefault(name, []).append(run)
            print(f"  {name}: {np.mean([run.seconds for run in runs[name]]) / most:.3f} s a trial of its own", flush=True)
    known = min(run.best(most, budget) for each in runs.values() for run in each)

    def scores(name: str, evaluations: int) -> list[float]:
        if truth:
            return [truth.share(points_of(run.within(evaluations))) for run in runs[name]]
        return [run.best(evaluations, budget) / known for run in runs[name]]

    what = "share of the true hypervolume" if truth else f"least loss within {budget:,} bytes over {known:.5g}, the best of all"
    print(f"\n{what}, mean over seeds (worst)\n\n| engine | {' | '.join(map(str, options.evaluations))} |")
    print("| --- |" + " --- |" * len(options.evaluations))
    worst = min if truth else max
    for name in runs:
        cells = [f"{np.mean(found):.4f} ({worst(found):.4f})" for found in (scores(name, count) for count in options.evaluations)]
        print(f"| {name} | {' | '.join(cells)} |")
    if truth:
        bounds = [f"{truth.bound(count):.4f}" for count in options.evaluations]
        print(f"| so many plans of the front | {' | '.join(bounds)} |")
    if options.csv:
        lines = ["engine,seed,trial,spent,size_bytes,loss,whole"]
        for name, each in runs.items():
            for seed, run in zip(options.seeds, each, strict=True):
                for record, spent in zip(run.records, run.spent, strict=True):
                    lines.append(f"{name},{seed},{record.number},{spent:.4f},{record.size_bytes},{record.loss!r},{int(record.whole)}")
        write_atomically(options.csv, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
