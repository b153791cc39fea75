"""Search and apply with a model larger than the memory of the process; memory use that does not grow with depth.

    python -m benchmarks.runs.memory

Part 1: a Llama with random weights (only shapes matter here) is written to disk in bfloat16, tensor by tensor. Its
weights in float32, the dtype in which plans are scored, exceed the cap several times. A separate process searches and
applies the winner: statistics, a bank with GPTQ, sensitivities, trials, finalists compressed in order and from three
calibration draws. The system limits its memory to the cap with RLIMIT_DATA, which counts every private writable page,
including those of Python, torch and all other libraries. Files mapped read-only are not counted, because the system
may reclaim their pages at any time. To keep the run short, one matrix of every fifth block has choices; all others
are kept.

Part 2: statistics and default bank of models with one width and growing depth, streamed, without a cap, in one
process. (With several processes, the use of each depends on the choices that it happens to get.) The figures are
peaks of anonymous memory above the libraries' own.

Part 3: the same for a model that fits in memory (the demo model). Two processes fill the bank beside the one that
collected the statistics.

Peaks are maxima of /proc/PID/status, sampled every 10 ms. Exits 1 if the weights are less than 1.5 times the cap, if
anything fails, or if the deepest model takes over a tenth more than the shallowest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "ARROW_DEFAULT_MEMORY_POOL": "system"}

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

import paredown
from paredown.compressors.original.checkpoint import parameters_of, skeleton
from paredown.deploy.formats.shards import write_shards
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.study_file import StudyFile
from paredown.space.tensors import TensorSpec

MB = 10**6
DEMO = Path(__file__).parents[2] / "studies/models/demo"
TIMES = 1.5
"""Least ratio of the weights in float32 to the cap."""

TOKENS = {"calibration": 128, "search": 128, "selection": 128, "held_out": 128, "sequence_length": 64}
SPACE = {
    "choices": {"linear": ["keep"], "embedding": ["keep", "quantize bits=8"], "ffn": [], "attention": [], "block": []},
    "overrides": [
        {
            "match": r"re:.*[05]\.mlp\.down_proj",
            "choices": ["keep", "quantize bits=4 group_size=64 algorithm=gptq", "quantize bits=8"],
        },
    ],
    "max_drops": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Peak use of a process.

    Attributes:
        seconds: Time from its libraries being loaded to its end [s].
        before: Anonymous memory of the libraries [bytes].
        resident: Peak anonymous memory [bytes].
        counted: Peak memory as RLIMIT_DATA counts it [bytes].
        worker: Peak anonymous memory of a child process [bytes].
        together: Peak anonymous memory of the process and its children together [bytes].
    """

    seconds: float
    before: int
    resident: int
    counted: int
    worker: int
    together: int


def make_model(folder: Path, layers: int, hidden: int, intermediate: int) -> int:
    """Writes a model and a character tokenizer; returns the size of the weights in float32 [bytes]."""
    config = LlamaConfig(
        vocab_size=128, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    folder.mkdir()
    config.save_pretrained(folder)
    layout = {name: TensorSpec("bfloat16", tuple(each.shape)) for name, each in parameters_of(skeleton(config)).items()}
    generator = torch.Generator().manual_seed(0)

    def drawn(spec: TensorSpec) -> torch.Tensor:
        if len(spec.shape) == 1:
            return torch.ones(spec.shape, dtype=torch.bfloat16)
        return torch.randn(spec.shape, generator=generator).div_(spec.shape[1] ** 0.5).bfloat16()

    write_shards(folder, "model", layout, ((name, drawn(spec)) for name, spec in layout.items()), shard_bytes=256 * MB)
    words = Tokenizer(models.WordLevel({chr(i): i for i in range(128)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="\0", eos_token="\0").save_pretrained(folder)
    return sum(2 * spec.size_bytes for spec in layout.values())


def watched(target: Callable[..., None], *arguments: Any) -> Peak:
    """Peak use of a function that runs in its own process."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_run, args=(ready, target, *arguments))
    process.start()
    ready.wait()
    started, before = time.perf_counter(), _status(process.pid)["RssAnon"]
    peak, worker, together = {"RssAnon": 0, "VmData": 0}, 0, 0
    while process.exitcode is None:
        now = _status(process.pid)
        peak = {name: max(value, peak[name]) for name, value in now.items()} or peak
        workers = [_status(child).get("RssAnon", 0) for child in _children(process.pid)]
        worker, together = max(worker, *workers, 0), max(together, now.get("RssAnon", 0) + sum(workers))
        process.join(0.01)
    if process.exitcode:
        raise SystemExit(f"{target.__name__}{arguments} ended with exit code {process.exitcode}")
    seconds, counted = time.perf_counter() - started, peak["VmData"]
    return Peak(
        seconds=seconds, before=before, resident=peak["RssAnon"], counted=counted, worker=worker, together=together
    )


def _run(ready: Any, target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    ready.set()
    time.sleep(0.1)
    target(*arguments)


def _status(pid: int | None) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) * 1024 for name in ("RssAnon", "VmData") if name in values}


def _children(pid: int | None) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def search_and_apply(model: Path, out: Path, trials: int, cap: int) -> None:
    """Searches and applies under the cap; an allocation beyond it fails and ends the process."""
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    study = {
        "model": str(model),
        "budget": "98.5%",
        "trials": trials,
        "latency": "off",
        "tokens": TOKENS,
        "space": SPACE,
    }
    outcome = paredown.find_plan(study, out / "study", workers=1)
    if outcome.decision.winner is None:
        raise SystemExit("the search ended without a winner")
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.circumstances.seconds.items())
    print(f"  {steps}", flush=True)
    applied, _ = paredown.apply(out / "study" / "best" / "plan.yaml", model, out / "applied", check=False)
    trials, ordered = len(outcome.trials.measured), len(outcome.decision.refits)
    print(f"  searched: {trials} trials, {ordered} plans compressed in order; "
          f"applied: {applied.size_bytes:,} tensor bytes, {applied.predicted_bytes:,} predicted")  # fmt: skip
    if applied.size_bytes != applied.predicted_bytes:
        raise SystemExit("the written bytes differ from the predicted bytes")


def statistics_and_bank(model: Path, out: Path, settings: dict[str, Any], workers: int) -> None:
    """Collects the statistics and fills the bank, the first steps of every search."""
    study = StudyFile.model_validate({"model": str(model), "latency": "off", **settings})
    Workbench.open(study, out / "bank", workers).fill_bank()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=(40, 1024, 1024),
        help="layers, hidden size, size of the feed-forward network",
    )
    parser.add_argument("--cap", type=int, default=640, help="memory limit of the process [MB]")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument(
        "--depths",
        type=int,
        nargs="*",
        default=(4, 8, 16),
        help="layers of the models of part 2; without values it is skipped",
    )
    parser.add_argument(
        "--width", type=int, nargs=2, default=(128, 256), help="hidden size, size of the feed-forward network"
    )
    parser.add_argument("--bank", type=Path, default=DEMO, help="model of part 3; a missing folder skips it")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="parent of the temporary folder; must be on a disk, not in memory"
    )
    options = parser.parse_args()
    machine, failed = environment(), False
    print(
        f"{machine['cpu']}, torch {machine['torch']}, one thread a process; bfloat16 on disk, scored in float32",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".benchmark-") as name:
        root = Path(name).absolute()
        if options.shape[0]:
            failed |= not larger_than_memory(root, options.shape, options.cap * MB, options.trials)
        if options.depths:
            failed |= not flat_in_depth(root, options.depths, options.width)
        if options.bank.is_dir():
            default_bank(options.bank.absolute(), root)
    return int(failed)


def larger_than_memory(root: Path, shape: tuple[int, int, int], cap: int, trials: int) -> bool:
    """Part 1; returns whether the weights exceed the cap by the required ratio."""
    dense = make_model(root / "model", *shape)
    print(
        f"search and apply: {shape[0]} layers of width {shape[1]}, {trials} trials of {TOKENS['search']} tokens",
        flush=True,
    )
    peak = watched(search_and_apply, root / "model", root, trials, cap)
    print(
        f"  weights in float32 {dense / MB:.0f} MB, {dense / cap:.2f} times the cap of {cap / MB:.0f} MB; "
        f"{peak.seconds:.0f} s"
    )
    resident = f"{peak.resident / MB:.0f} MB resident, {peak.before / MB:.0f} MB of it libraries"
    print(f"  peak {peak.counted / MB:.0f} MB as counted by the cap; {resident}")
    return dense >= TIMES * cap


def flat_in_depth(root: Path, depths: Sequence[int], width: tuple[int, int]) -> bool:
    """Part 2; returns whether the deepest model takes at most a tenth more than the shallowest."""
    print(
        f"statistics of {TOKENS['calibration']} tokens and default bank: width {width[0]}, feed-forward {width[1]}",
        flush=True,
    )
    peaks = []
    for depth in depths:
        dense = make_model(root / f"deep-{depth}", depth, *width)
        peak = watched(
            statistics_and_bank, root / f"deep-{depth}", root / f"bank-{depth}", {"tokens": TOKENS, "memory": "1MB"}, 1
        )
        peaks.append(peak.resident - peak.before)
        print(
            f"  {depth:>2} layers: weights in float32 {dense / MB:.1f} MB; "
            f"peak {peaks[-1] / MB:.1f} MB above the libraries' {peak.before / MB:.0f} MB; {peak.seconds:.0f} s",
            flush=True,
        )
    return peaks[-1] <= 1.1 * peaks[0]


def default_bank(model: Path, root: Path) -> None:
    """Part 3."""
    peak = watched(statistics_and_bank, model, root / "default", {}, 2)
    print(f"statistics and default bank of {model.name}, in memory, two processes: {peak.seconds:.0f} s")
    print(
        f"  peak {peak.resident / MB:.0f} MB, {peak.before / MB:.0f} MB of it libraries; "
        f"per worker {peak.worker / MB:.0f} MB; all three together {peak.together / MB:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
