"""The search compared with uniform GPTQ of the same bytes, on held-out documents, over several seeds.

    python -m benchmarks.runs.uniform --model studies/models/demo --out runs/benchmark-uniform

For each bit-width the budget is the size of the uniform plan with groups of 64, to the byte. The embedding is pinned
to 8 bits in groups of 64 for all. The uniform plan is compressed in order twice. *Sequential* is GPTQ as its authors
run it: each matrix is calibrated on the inputs that the compressed matrices before it produce. *Corrected* is
paredown's way: each matrix also compensates for their error. All plans are rebuilt from three calibration draws. Two
more plans are measured: one of 7 % fewer bytes, solved under the losses that the study learnt; and the plan of the
first version of paredown, which had no calibrated methods, at the same bytes. With --data-free the study offers
data-free choices only, and the uniform plan is fitted to the weights alone. The same command resumes after an
interruption. Exits 1 if the upper end of an interval relative to the sequential uniform plan is above its limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import paredown  # noqa: F401 - registers the methods
from benchmarks.model_options import model_parser, tokens_asked
from paredown.cli.progress import Silent
from paredown.compressors.model.sequential import in_order
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators.comparison import Ratio, ratio
from paredown.evaluators.quality import Quality
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.rebuild import Rebuilder, Version, rebuilder
from paredown.search.outcome.outcome import Outcome
from paredown.search.sensitivity.lazy_choices import data_free
from paredown.search.sensitivity.stored import SENSITIVITY, read_losses, read_sensitivity
from paredown.search.solver.solver import Solver
from paredown.search.study.run import run_study
from paredown.search.study.select import learnt
from paredown.search.trials.uniform import uniform_plan
from paredown.search.workbench.environment import environment
from paredown.search.workbench.survey import survey
from paredown.search.workbench.workbench import Workbench
from paredown.space.budget import Budget
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.site import Kind
from paredown.space.study_file import ChoiceText, Override, SpaceFile, StudyFile, Tokens

EMBEDDING = "quantize bits=8 group_size=64"
CODEBOOKS = [f"cluster clusters={clusters}" for clusters in (4, 6, 8, 12, 16, 32)]
"""Scalar codebooks of paredown's first version; vector codebooks need calibration texts."""

FEWER = 0.93
"""Size of the smaller plan, as a share of the uniform plan's bytes."""

FIRST_VERSION = Path(__file__).parents[2] / "studies" / "plans"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A plan compared with the uniform plan on the same held-out documents.

    Attributes:
        name: Name of the plan.
        size_bytes: Tensor bytes.
        qualities: Held-out quality for each calibration draw.
        sequential: Loss relative to the sequential uniform plan.
        corrected: Loss relative to the corrected uniform plan.
        limit: Greatest allowed upper end of the interval of ``sequential``; None if unlimited.
    """

    name: str
    size_bytes: int
    qualities: list[Quality]
    sequential: Ratio
    corrected: Ratio
    limit: float | None = None

    @property
    def fails(self) -> bool:
        """Whether the interval's upper end exceeds the limit."""
        return self.limit is not None and self.sequential.high > self.limit

    def __str__(self) -> str:
        cells = [self.name, f"{self.size_bytes:,}", " ".join(f"{quality.mean:.5f}" for quality in self.qualities)]
        cells += [
            f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]" for found in (self.sequential, self.corrected)
        ]
        return "| " + " | ".join([*cells, "" if self.limit is None else str(self.limit)]) + " |"


def rows(study: StudyFile, bits: int, folder: Path, bank: Path, limits: tuple[float, float]) -> Iterator[Row]:
    """Runs the search at the uniform plan's bytes, then measures every compared plan."""
    bench = Workbench.open(study, bank)
    inventory = bench.space.inventory
    uniform = uniform_plan(bench.space, bits, 64, parse_choice(EMBEDDING))
    asked = study.model_copy(update={"budget": Budget.parse(f"{uniform.size_bytes}B")})
    outcome = run_study(asked, folder, Silent(), TorchModel, bank=bank)
    best = outcome.best if outcome.decision.searched is None else outcome.trials[outcome.decision.searched]
    if best is None:
        raise SystemExit(f"{folder}: no trial fits {uniform.size_bytes} bytes; give more --trials")
    draws = range(DRAWS if bench.is_calibrated(uniform.plan) else 1)
    with rebuilder(bench) as rebuild:
        plain, corrected = sequential(bench, uniform.plan, draws), drawn(rebuild, uniform.plan, draws, in_order=True)

        def row(name: str, plan: Plan, ours: list[Quality], limit: float | None = None) -> Row:
            one, other = (ratio(ours, theirs, seed=study.seed) for theirs in (plain, corrected))
            size = plan.size_bytes(inventory)
            return Row(name=name, size_bytes=size, qualities=ours, sequential=one, corrected=other, limit=limit)

        def against(name: str, plan: Plan, *, in_order: bool, limit: float | None = None) -> Row:
            return row(name, plan, drawn(rebuild, plan, draws, in_order=in_order), limit)

        yield row(f"uniform {uniform.label}, sequential", uniform.plan, plain)
        yield row(f"uniform {uniform.label}, corrected", uniform.plan, corrected)
        yield against(f"winner ({best.label})", best.plan, in_order=outcome.decision.in_order(best), limit=limits[0])
        smaller = learnt_plan(bench, outcome, folder, int(FEWER * uniform.size_bytes))
        yield against(f"solved for {100 * (1 - FEWER):.0f} % fewer bytes", smaller, in_order=True, limit=limits[1])
        first = FIRST_VERSION / f"first-version-{bits}-bit.yaml"
        if first.is_file() and PlanFile.read(first).base_model.shapes_sha256 == inventory.shapes_sha256():
            yield against("first version's plan", PlanFile.read(first).plan_for(inventory), in_order=False)


def drawn(rebuild: Rebuilder, plan: Plan, draws: range, *, in_order: bool) -> list[Quality]:
    """Held-out quality of a plan rebuilt from each calibration draw."""
    return [rebuild.measure(plan, "held-out", Version(in_order=in_order, draw=draw)) for draw in draws]


def sequential(bench: Workbench, plan: Plan, draws: range) -> list[Quality]:
    """Held-out quality of a plan compressed in order without correction, for each calibration draw."""
    qualities = []
    for draw in draws:
        part = bench.texts.calibration(draw)
        bank = in_order(bench.planned, plan, bench.banks.on(part), part.tokens, part.mask, None)
        qualities.append(bench.evaluator.measure(plan, "held-out", bank))
    return qualities


def learnt_plan(bench: Workbench, outcome: Outcome, folder: Path, budget_bytes: int) -> Plan:
    """The solver's plan for another budget, under the losses that the trials taught."""
    losses = read_losses(read_sensitivity(folder / SENSITIVITY))
    return learnt(Solver(bench.space), losses, outcome.trials.measured, budget_bytes)[0]


def data_free_choices(study: StudyFile) -> dict[Kind, list[ChoiceText]]:
    """The default choices of each kind of site, replaced by their data-free siblings, and scalar codebooks."""
    space = data_free(survey(study)[1])
    found: dict[Kind, list[ChoiceText]] = {"linear": list(CODEBOOKS)}
    for site in space.inventory.sites:
        kind = found.setdefault(site.kind, [])
        kind += [text for choice in space.options[site.name] if (text := str(choice)) not in kind]
    return found


def main() -> int:
    parser = model_parser(__doc__, Tokens())
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmark-uniform"),
        help="parent of the study folders; the same one resumes",
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--sampler", default="frontier")
    parser.add_argument("--data-free", action="store_true", help="offer data-free choices only")
    parser.add_argument(
        "--limit", type=float, default=0.8, help="greatest allowed upper end of the winner's 95 %% interval"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = tokens_asked(options)
    study = StudyFile(
        model=options.model,
        data=options.data,
        sampler=options.sampler,
        trials=options.trials,
        patience="off",
        latency="off",
        tokens=tokens,
    )
    choices = data_free_choices(study) if options.data_free else {}
    pinned = SpaceFile(choices=choices, overrides=[Override(match="Embedding", choices=[EMBEDDING])])
    machine = environment()
    print(
        f"{options.model}, target paredown, embedding pinned to {EMBEDDING}; "
        f"{machine['cpu']}, 1 thread, torch {machine['torch']}"
    )
    print(
        f"tokens: {tokens}; {options.trials} trials; latency off; "
        "interval: paired bootstrap over held-out documents and draws"
    )
    failures = 0
    for bits in options.bits:
        for seed in options.seeds:
            print(f"\n{bits} bits, seed {seed}; losses in nats/token\n")
            print("| plan | bytes | held-out loss by draw | / sequential, 95 % | / corrected, 95 % | limit |")
            print("| --- | --- | --- | --- | --- | --- |", flush=True)
            asked = study.model_copy(update={"space": pinned, "seed": seed})
            for row in rows(
                asked, bits, options.out / f"{bits}-bit-seed-{seed}", options.out / "bank", (options.limit, 1.0)
            ):
                failures += row.fails
                print(row, flush=True)
    print(f"\n{failures} intervals above their limits")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
