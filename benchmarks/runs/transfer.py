"""A plan transferred to another model of its family, compared with uniform plans and a new search.

    python -m benchmarks.runs.transfer --plan runs/tour/best/plan.yaml --model studies/models/demo \\
        --fine-tune-on TEXT --minutes 2
    python -m benchmarks.runs.transfer --plan runs/tour/best/plan.yaml --model OTHER --data TEXT

With --fine-tune-on, the model is first trained further on every second document of a text, in one thread, for
--minutes. The other documents are then the data. The plan is transferred with and without measured moves, at its own
bytes per parameter or at --budget. A search of the model gets the same budget. Each plan is measured on the same
held-out documents; calibrated plans are rebuilt from three draws of the calibration texts. Tokens are those of
forward passes, counted alike for all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

import paredown
from benchmarks.model_options import model_parser, tokens_asked
from paredown.cli.progress import Silent
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators.comparison import ratio
from paredown.evaluators.quality import Quality
from paredown.evaluators.sources import END_OF_TEXT
from paredown.search.cost.cost import tokens_of_checks
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.rebuild import Version, rebuilder
from paredown.search.outcome.outcome import Outcome
from paredown.search.sensitivity.stored import SENSITIVITY, read_sensitivity
from paredown.search.study.run import run_study
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.budget import Budget
from paredown.space.study_file import StudyFile, Tokens

WINDOW, BATCH = 256, 8


def fine_tuned(model: str, text: Path, minutes: float, rate: float, out: Path) -> tuple[str, Path]:
    """The folder of the model fine-tuned on every second document, and a file of the other documents; made once."""
    folder, rest = out / "fine-tune", out / "domain.txt"
    if (folder / "config.json").is_file():
        return str(folder), rest
    documents = [
        part.strip() for part in text.read_text(encoding="utf-8", errors="ignore").split(END_OF_TEXT) if part.strip()
    ]
    out.mkdir(parents=True, exist_ok=True)
    rest.write_text(END_OF_TEXT.join(documents[1::2]), encoding="utf-8")
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    stored, network = network.dtype, network.float()
    ids = [
        token for document in documents[::2] for token in tokenizer(document + END_OF_TEXT, verbose=False)["input_ids"]
    ]
    windows = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    began, steps, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / 60 / minutes) < 1:
        optimizer.param_groups[0]["lr"] = rate * (1 - done)
        batch = windows[torch.randint(len(windows), (BATCH,), generator=generator)]
        logits = network(input_ids=batch, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        losses.append(loss.item())
    network.to(stored).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    learnt = f"loss {losses[0]:.3f} -> {sum(losses[-20:]) / 20:.3f}"
    print(f"fine-tuned {model} on {text.name}: {steps} steps of {BATCH} x {WINDOW} tokens, {learnt}")
    return str(folder), rest


def draws_of(outcome: Outcome, number: int, bench: Workbench) -> list[Quality]:
    """Held-out quality of a trial's plan, in the version that its outcome chose, for each calibration draw."""
    trial = outcome.trials[number]
    with rebuilder(bench) as rebuild:
        versions = [Version(in_order=outcome.decision.in_order(trial), draw=draw) for draw in range(DRAWS)]
        return [rebuild.measure(trial.plan, "held-out", version) for version in versions]


def tokens_of(outcome: Outcome, tokens: Tokens, folder: Path) -> int:
    """Tokens that a search read in forward passes."""
    stored = read_sensitivity(folder / SENSITIVITY)
    before = (
        tokens.calibration
        + stored.forward_tokens
        + 2 * stored.backward_tokens
        + round(tokens.search * (1 + outcome.trials.spent))
    )
    return before + tokens_of_checks(
        tokens, len(outcome.decision.selection), len(outcome.decision.held_out), calibrated=True
    )


def table(rows: Sequence[tuple[str, int, list[Quality], int | None]], seed: int) -> None:
    """Prints held-out losses relative to the first row (uniform) and the last (new search), with intervals."""
    print("| plan | bytes | held-out loss by draw | / uniform, 95 % | / new search, 95 % | tokens |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, size, qualities, tokens in rows:
        found = [ratio(qualities, other[2], seed=seed) for other in (rows[0], rows[-1])]
        cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in found]
        losses = " ".join(f"{quality.mean:.5f}" for quality in qualities)
        print("| " + " | ".join([name, f"{size:,}", losses, *cells, f"{tokens:,}" if tokens else ""]) + " |")


def main() -> None:
    parser = model_parser(__doc__, Tokens(calibration=8192, selection=8192, held_out=16384))
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--fine-tune-on", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0, help="duration of the fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--budget", help="the plan's own bytes per parameter by default")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-transfer"))
    parser.add_argument("--moves", type=int, default=8)
    parser.add_argument("--trials", type=int, default=24, help="trials of the new search")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, data = options.model, options.data
    if options.fine_tune_on:
        model, text = fine_tuned(model, options.fine_tune_on, options.minutes, options.learning_rate, options.out)
        data = [str(text)]
    tokens = tokens_asked(options)
    asked = {
        "model": model,
        "data": data,
        "latency": "off",
        "trials": options.trials,
        "seed": options.seed,
        "tokens": tokens,
    }
    study_file = StudyFile.model_validate(asked | ({"budget": options.budget} if options.budget else {}))
    machine = environment()
    print(
        f"{options.plan} -> {model}; {machine['cpu']}, 1 thread, torch {machine['torch']}; "
        f"seed {options.seed}; {tokens}"
    )
    bank = options.out / "bank"
    plain, moved = (
        paredown.transfer(options.plan, study_file, options.out / f"moves-{moves}.yaml", trials=moves, bank=bank)
        for moves in (0, options.moves)
    )
    how = "by name" if moved.by_name else "by relative depth and role"
    print(
        f"carried over {how}: {moved.before_bytes:,} bytes, "
        f"{moved.repaired} sites changed to fit {moved.outcome.question.budget_bytes:,}"
    )
    folder = options.out / f"search-{options.trials}"
    budget = Budget.parse(f"{moved.outcome.question.budget_bytes}B")
    new_study = study_file.model_copy(update={"budget": budget, "patience": "off"})
    outcome = run_study(new_study, folder, Silent(), TorchModel, bank=bank)
    bench = Workbench.open(new_study, bank)
    new_tokens = tokens_of(outcome, tokens, folder)
    rivals: list[tuple[str, Outcome, int | None, int | None]] = [
        ("best uniform plan", moved.outcome, moved.outcome.decision.uniform, None),
        ("transferred", plain.outcome, plain.outcome.decision.searched, plain.tokens),
        (f"transferred, {options.moves} moves measured", moved.outcome, moved.outcome.decision.searched, moved.tokens),
        (f"new search, {options.trials} trials", outcome, outcome.decision.searched, new_tokens),
    ]
    measured = [
        (name, its.trials[n].size_bytes, draws_of(its, n, bench), read)
        for name, its, n, read in rivals
        if n is not None
    ]
    table(measured, options.seed)


if __name__ == "__main__":
    main()
