"""Measures every plan of a small problem and writes its true front beside it.

    OMP_NUM_THREADS=1 python scripts/enumerate_plans.py studies/problems/quantization.yaml

Five minutes on one core for the 6,561 plans of that problem. A few plans are measured in the ordinary way too, and must agree.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import paredown  # noqa: F401 - registers the methods
from paredown.search.contest import Truth
from paredown.search.enumeration import Enumerator
from paredown.search.workbench import Workbench, environment
from paredown.space.files import write_atomically
from paredown.space.study_file import StudyFile

CHECKED, CLOSE = 8, 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", type=Path, help="a study file")
    parser.add_argument("--model", help="another model than the file's")
    parser.add_argument("--data", nargs="+", help="other texts than the file's")
    parser.add_argument("--out", type=Path, help="by default beside the problem, NAME.front.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changes = {key: value for key, value in (("model", options.model), ("data", options.data)) if value}
    study = StudyFile.read(options.problem).model_copy(update=changes)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(study, Path(folder) / "bank")
        bench.fill_bank()
        marks = iter(range(0, 1 << 30, 4096))
        mark = [next(marks)]

        def told(done: int, of: int) -> None:
            if done >= mark[0]:
                mark[0] = next(marks)
                print(f"{done:,} of {of:,} plans, {time.monotonic() - started:.0f} s", flush=True)

        enumerator = Enumerator(bench, told)
        found = enumerator.run()
        for index in np.random.default_rng(0).choice(len(found.losses), CHECKED):
            ordinary = bench.measure(enumerator.plan(found.codes[index])).mean
            if abs(ordinary - found.losses[index]) > CLOSE * ordinary:
                print(f"plan {index}: {found.losses[index]:.6g} by enumeration, {ordinary:.6g} in the ordinary way")
                return 1
    truth = Truth.of(found)
    content = {
        "problem": options.problem.name,
        "model": study.model,
        "plans": len(found.losses),
        "environment": environment(),
        "search_sha256": bench.sequences["search"].sha256(),
        "front": truth.front,
    }
    path = options.out or options.problem.with_suffix(".front.json")
    write_atomically(path, json.dumps(content, indent=0))
    print(f"wrote {path}: {len(truth.front)} of {len(found.losses):,} plans are on the front; {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
