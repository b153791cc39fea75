"""How often the search's best is worse than the best uniform plan, before and after the guard, over random studies.

    python -m benchmarks.runs.never_worse --model studies/models/demo --out runs/never-worse

Each pair of a budget and a seed is one study through the public call, without latency. Before the guard, a failure is
an interval of the search's best relative to the best uniform plan, on the held-out documents, that lies above 1.
After the guard, the winner is compared with that uniform plan again, on as many documents that no set of the study
holds; a failure is an interval above 1 there. The studies share a bank. With --data-free they offer only data-free
choices, so one study's records serve all. Results are saved after each pair: the same command resumes, and more
--pairs add to the finished ones. Exits 1 if more than one in ten intervals lies above 1 before the guard, a winner is
worse, a budget is exceeded, or the half-width of a loss's interval exceeds 5 % of the loss.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import paredown
from benchmarks.model_options import model_parser, tokens_asked
from benchmarks.runs.uniform import data_free_choices
from paredown.cli.progress import Silent
from paredown.evaluators.comparison import ratio
from paredown.evaluators.sequences import Sequences
from paredown.search.finalists.rebuild import Version, rebuilder
from paredown.search.outcome.decision import Comparison
from paredown.search.outcome.outcome import Outcome
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.budget import Budget
from paredown.space.study_file import SpaceFile, StudyFile, Tokens
from paredown.space.system.files import write_atomically

WIDEST = 0.05
"""Greatest allowed half-width of a loss's 95 % interval, as a share of the loss."""

WRONG_SHARE = 0.1
"""Greatest allowed share of intervals that lie above 1 before the guard."""


class Unreported(Silent):
    """No progress and no report: drawing the report takes as long as the trials."""

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The result of one study.

    Attributes:
        budget: The requested budget.
        seed: The study's seed.
        overrun: Winner's size minus the budget [bytes]; at most zero if the budget holds.
        before: Low, mean and high of the loss ratio of the search's best to the best uniform plan; None if they are the
            same plan or there is no uniform plan.
        after: Low, mean and high of the loss ratio of the winner to that uniform plan, on other documents; None if the
            uniform plan won.
        half_widths: Half-widths of the held-out losses' intervals, as shares of the losses.
        proposed: Number of trials that the sampler proposed.
        seconds: Duration of the study [s].
    """

    budget: str
    seed: int
    overrun: int
    before: tuple[float, float, float] | None
    after: tuple[float, float, float] | None
    half_widths: tuple[float, ...]
    proposed: int
    seconds: float

    def __str__(self) -> str:
        spreads = [
            f"{found[1]:.3f} [{found[0]:.3f}, {found[2]:.3f}]" if found else "" for found in (self.before, self.after)
        ]
        cells = [self.budget, str(self.seed), *spreads, f"{100 * max(self.half_widths):.1f} %", f"{self.seconds:.0f}"]
        return "| " + " | ".join(cells) + " |"


def measured(study: StudyFile, folder: Path, bank: Path) -> Pair:
    """Runs a study and compares its winner again on other documents."""
    started = time.monotonic()
    outcome = paredown.find_plan(study, folder, progress=Unreported(), bank=bank, workers=1)
    seconds = time.monotonic() - started
    assert outcome.best is not None  # a budget below the smallest plan is refused before any trial
    after = None
    if outcome.decision.uniform is not None and outcome.decision.winner != outcome.decision.uniform:
        after = elsewhere(study, outcome, bank)
    return Pair(
        budget=str(study.budget),
        seed=study.seed,
        overrun=outcome.best.size_bytes - outcome.question.budget_bytes,
        before=spread(outcome.decision.comparisons.get("uniform")),
        after=after,
        half_widths=tuple((found.high - found.low) / (2 * found.mean) for found in outcome.decision.held_out.values()),
        proposed=sum(trial.origin == study.sampler for trial in outcome.trials.measured) + outcome.trials.stopped_early,
        seconds=seconds,
    )


def elsewhere(study: StudyFile, outcome: Outcome, bank: Path) -> tuple[float, float, float]:
    """Loss ratio of the winner to the best uniform plan, on documents outside the study's held-out set."""
    tokens = study.tokens.model_copy(update={"held_out": 2 * study.tokens.held_out})
    held, bench = (
        Workbench.open(study, bank).texts.sequences["held-out"],
        Workbench.open(study.model_copy(update={"tokens": tokens}), bank),
    )
    bench.texts.sequences["held-out"] = others(bench.texts.sequences["held-out"], held.documents)
    assert outcome.best is not None and outcome.decision.uniform is not None
    with rebuilder(bench) as rebuild:
        pair = [outcome.best, outcome.trials[outcome.decision.uniform]]
        ours, theirs = (
            rebuild.measure(r.plan, "held-out", Version(in_order=outcome.decision.in_order(r))) for r in pair
        )
    found = ratio(ours, theirs, seed=study.seed)
    return found.low, found.mean, found.high


def others(sequences: Sequences, documents: int) -> Sequences:
    """The sequences without those of the first ``documents`` documents."""
    rows = sequences.document >= documents
    if int(rows.sum()) < 2:
        raise SystemExit("the text has no further held-out documents; give more --data, or fewer --held-out tokens")
    return Sequences(
        tokens=sequences.tokens[rows], mask=sequences.mask[rows], document=sequences.document[rows] - documents
    )


def spread(comparison: Comparison | None) -> tuple[float, float, float] | None:
    """Low, mean and high of a ratio; None without a comparison."""
    return (comparison.low, comparison.mean, comparison.high) if comparison else None


def read(path: Path) -> list[Pair]:
    """The saved pairs; empty if the file does not exist."""
    lists = ("before", "after", "half_widths")
    stored: list[Mapping[str, Any]] = json.loads(path.read_text()) if path.is_file() else []

    def pair(row: Mapping[str, Any]) -> Pair:
        values: dict[str, Any] = {name: tuple(row[name]) if row[name] else row[name] for name in lists}
        return Pair(**{**row, **values})

    return [pair(row) for row in stored]


def faults(pairs: list[Pair]) -> list[str]:
    """Prints the summary and returns one line per failed expectation."""
    wrong = sum(pair.before is not None and pair.before[0] > 1 for pair in pairs)
    worse = sum(pair.after is not None and pair.after[0] > 1 for pair in pairs)
    overrun = sum(pair.overrun > 0 for pair in pairs)
    wide = sum(max(pair.half_widths) > WIDEST for pair in pairs)
    right = sum(pair.before is not None and pair.before[2] < 1 for pair in pairs)
    widths = np.array([max(pair.half_widths) for pair in pairs])
    print(
        f"\n{len(pairs)} pairs; the search's best is better beyond the interval in {right}, worse in {wrong}; "
        f"budgets exceeded: {overrun}"
    )
    print(
        f"winners that are not the uniform plan: {sum(pair.after is not None for pair in pairs)}, "
        f"worse on other documents: {worse}"
    )
    print(f"half-widths of losses: median {100 * np.median(widths):.1f} %, widest {100 * widths.max():.1f} %")
    told = {
        "intervals above 1, beyond one in ten": max(0, wrong - int(WRONG_SHARE * len(pairs))),
        "worse winners": worse,
    }
    told |= {"budgets exceeded": overrun, f"intervals wider than {100 * WIDEST:.0f} %": wide}
    return [f"{name}: {count}" for name, count in told.items() if count]


def main() -> int:
    parser = model_parser(__doc__, Tokens(calibration=4096, search=4096, selection=8192, held_out=32768))
    parser.add_argument(
        "--out", type=Path, default=Path("runs/never-worse"), help="parent of the study folders; the same one resumes"
    )
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument(
        "--budgets", type=float, nargs=2, default=[2.5, 6.0], metavar=("LOW", "HIGH"), help="bits per weight"
    )
    parser.add_argument(
        "--trials", type=int, default=32, help="trials of a study; about 24 precede the sampler's first"
    )
    parser.add_argument("--data-free", action="store_true", help="offer data-free choices only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = tokens_asked(options)
    study = StudyFile(
        model=options.model, data=options.data, trials=options.trials, patience="off", latency="off", tokens=tokens
    )
    if options.data_free:
        study = study.model_copy(update={"space": SpaceFile(choices=data_free_choices(study))})
    machine, path = environment(), options.out / "pairs.json"
    print(
        f"{options.model}, {machine['cpu']}, 1 thread, torch {machine['torch']}; "
        f"{options.trials} trials; tokens: {tokens}"
    )
    print("\n| budget | seed | search's best / uniform, 95 % | winner / uniform, other documents | half-width | s |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    generator, pairs = np.random.default_rng(0), read(path)
    drawn = [
        (f"{generator.uniform(*options.budgets):.3f}bpw", int(generator.integers(1 << 20)))
        for _ in range(options.pairs)
    ]
    for number, (budget, seed) in enumerate(drawn):
        if number >= len(pairs):
            asked = study.model_copy(update={"budget": Budget.parse(budget), "seed": seed})
            pairs.append(measured(asked, options.out / f"{budget}-{seed}", options.out / "bank"))
            write_atomically(path, json.dumps([asdict(pair) for pair in pairs], indent=1))
        print(pairs[number], flush=True)
    found = faults(pairs)
    print("\n".join(found) or "all expectations hold")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
