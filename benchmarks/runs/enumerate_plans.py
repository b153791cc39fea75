"""Measures every plan of a small problem and writes its true front beside it.

    OMP_NUM_THREADS=1 python -m benchmarks.runs.enumerate_plans studies/problems/quantization.yaml

The 6,561 plans of that problem take five minutes on one core. A few plans are also measured as a study would, and
must agree.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.enumeration import Enumerator
from benchmarks.known_front import Truth
from benchmarks.problem import front_path, opened, problem_parser

CHECKED, CLOSE = 8, 1e-3
"""Number of plans that are also measured as a study would, and greatest relative difference of their losses."""


def main() -> int:
    parser = problem_parser(__doc__)
    parser.add_argument("--out", type=Path, help="output file; NAME.front.json beside the problem by default")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = opened(options, Path(folder))
        marks = iter(range(0, 1 << 30, 4096))
        mark = [next(marks)]

        def told(done: int, of: int) -> None:
            if done >= mark[0]:
                mark[0] = next(marks)
                print(f"{done:,} of {of:,} plans, {time.monotonic() - started:.0f} s", flush=True)

        enumerator = Enumerator(bench, told)
        found = enumerator.run()
        for index in np.random.default_rng(0).choice(len(found.losses), CHECKED):
            ordinary = bench.evaluator.measure(enumerator.plan(found.codes[index])).mean
            if abs(ordinary - found.losses[index]) > CLOSE * ordinary:
                print(f"plan {index}: {found.losses[index]:.6g} by enumeration, {ordinary:.6g} as a study measures it")
                return 1
        truth, path = Truth.of(found), options.out or front_path(options.problem)
        truth.write(path, options.problem.name, bench)
    print(
        f"wrote {path}: {len(truth.front)} of {truth.plans:,} plans are on the front; "
        f"{time.monotonic() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
