"""A model larger than the memory that a process may take goes through search and apply; and memory does not grow with depth.

    python scripts/benchmark_memory.py

First part: a Llama of random weights (only shapes matter here) is written to disk in bfloat16, tensor by tensor. Its weights in
float32, in which plans are scored, take a multiple of the cap. A process of its own, whose memory the system limits to the cap
(RLIMIT_DATA: every private writable page of the process, those of Python, torch and all other libraries included), searches and
applies the winner: statistics, a bank with GPTQ, sensitivities, trials, finalists compressed in order and from three draws of the
texts. Files that are mapped read-only are not counted: the system may take their pages back at any time. To keep it short, one
matrix of each block has choices, all others are kept.

Second part: the statistics and the default bank of models of one width and growing depth, streamed, without a cap, filled by two
processes beside the one that collected the statistics. The figures are peaks of anonymous memory above what the libraries take.

Peaks are the highest of samples of /proc/PID/status every 10 ms. Exits 1 if the weights are less than one and a half times the cap,
if anything fails, or if the deepest model takes more than a tenth above what the shallowest takes.
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
from paredown.compressors.checkpoint import parameters_of, skeleton
from paredown.deploy.shards import write_shards
from paredown.search.workbench import Workbench, environment
from paredown.space.study_file import StudyFile
from paredown.space.tensors import TensorSpec

MB = 10**6
TIMES = 1.5
"""How often the cap goes into the weights, at least."""

TOKENS = {"calibration": 256, "search": 128, "selection": 128, "held_out": 128, "sequence_length": 64}
SPACE = {
    "choices": {"linear": ["keep"], "embedding": ["keep", "quantize bits=8"], "ffn": [], "attention": [], "block": []},
    "overrides": [
        {"match": "re:.*down_proj", "choices": ["keep", "quantize bits=4 group_size=64 algorithm=gptq", "quantize bits=8"]},
    ],
    "max_drops": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What a process took.

    Attributes:
        seconds: From its libraries being loaded to its end.
        before: Anonymous memory that the libraries take [bytes].
        resident: The most anonymous memory [bytes].
        counted: The most that RLIMIT_DATA counts [bytes].
        worker: The most anonymous memory of a process that it started [bytes].
    """

    seconds: float
    before: int
    resident: int
    counted: int
    worker: int


def make_model(folder: Path, layers: int, hidden: int, intermediate: int) -> int:
    """Writes a model and a tokenizer of characters; bytes of its weights in float32."""
    config = LlamaConfig(
        vocab_size=128, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
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
    """Runs a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_run, args=(ready, target, *arguments))
    process.start()
    ready.wait()
    started, before = time.perf_counter(), _status(process.pid)["RssAnon"]
    peak, worker = {"RssAnon": 0, "VmData": 0}, 0
    while process.exitcode is None:
        peak = {name: max(value, peak[name]) for name, value in _status(process.pid).items()} or peak
        worker = max(worker, *(_status(child).get("RssAnon", 0) for child in _children(process.pid)), 0)
        process.join(0.01)
    if process.exitcode:
        raise SystemExit(f"{target.__name__}{arguments} ended with exit code {process.exitcode}")
    return Peak(seconds=time.perf_counter() - started, before=before, resident=peak["RssAnon"], counted=peak["VmData"], worker=worker)


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
    """All under the cap; whatever goes beyond it is refused by the system, and ends the process."""
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    study = {"model": str(model), "budget": "93%", "trials": trials, "latency": "off", "tokens": TOKENS, "space": SPACE}
    outcome = paredown.search(study, out / "study", workers=1)
    if outcome.winner is None:
        raise SystemExit("no plan won")
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
    print(f"  {steps}", flush=True)
    applied, _ = paredown.apply(out / "study" / "best" / "plan.yaml", model, out / "applied", check=False)
    print(f"  searched: {len(outcome.records)} trials, {len(outcome.refits)} plans compressed in order; "
          f"applied: {applied.size_bytes:,} tensor bytes, {applied.predicted_bytes:,} predicted")  # fmt: skip
    if applied.size_bytes != applied.predicted_bytes:
        raise SystemExit("other bytes than predicted")


def statistics_and_bank(model: Path, out: Path) -> None:
    """What every search begins with."""
    study = StudyFile.model_validate({"model": str(model), "latency": "off", "tokens": TOKENS, "memory": "1MB"})
    Workbench(study, out / "bank", 2).fill_bank()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(48, 1024, 1024), help="layers, hidden size, size of the feed-forward network"
    )
    parser.add_argument("--cap", type=int, default=800, help="MB that the process may take")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="*", default=(4, 8, 16), help="of the second part; none leaves it out")
    parser.add_argument("--width", type=int, nargs=2, default=(128, 256), help="hidden size, size of the feed-forward network")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the temporary folder is made; it must be on a disk")
    options = parser.parse_args()
    machine, failed = environment(), False
    print(f"{machine['cpu']}, torch {machine['torch']}, one thread a process; bfloat16 on disk, scored in float32", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".benchmark-") as name:
        root = Path(name).absolute()
        if options.shape[0]:
            failed |= not larger_than_memory(root, options.shape, options.cap * MB, options.trials)
        if options.depths:
            failed |= not flat_in_depth(root, options.depths, options.width)
    return int(failed)


def larger_than_memory(root: Path, shape: tuple[int, int, int], cap: int, trials: int) -> bool:
    """The first part; whether the weights are as much larger than the cap as they shall be."""
    dense = make_model(root / "model", *shape)
    print(f"search and apply: {shape[0]} layers of width {shape[1]}, {trials} trials of {TOKENS['search']} tokens", flush=True)
    peak = watched(search_and_apply, root / "model", root, trials, cap)
    print(f"  weights in float32 {dense / MB:.0f} MB, {dense / cap:.2f} times the cap of {cap / MB:.0f} MB; {peak.seconds:.0f} s")
    resident = f"{peak.resident / MB:.0f} MB resident, {peak.before / MB:.0f} MB of it libraries"
    print(f"  peak {peak.counted / MB:.0f} MB as the cap counts; {resident}")
    return dense >= TIMES * cap


def flat_in_depth(root: Path, depths: Sequence[int], width: tuple[int, int]) -> bool:
    """The second part; whether the deepest model takes no more than the shallowest, in both kinds of processes."""
    print(f"statistics of {TOKENS['calibration']} tokens and default bank: width {width[0]}, feed-forward {width[1]}", flush=True)
    main, workers = [], []
    for depth in depths:
        dense = make_model(root / f"deep-{depth}", depth, *width)
        peak = watched(statistics_and_bank, root / f"deep-{depth}", root / f"bank-{depth}")
        main.append(peak.resident - peak.before)
        workers.append(peak.worker)
        print(
            f"  {depth:>2} layers: weights in float32 {dense / MB:.1f} MB; peak {main[-1] / MB:.1f} MB above the libraries' "
            f"{peak.before / MB:.0f} MB; of a worker {workers[-1] / MB:.1f} MB, libraries included; {peak.seconds:.0f} s",
            flush=True,
        )
    return max(main[-1] - main[0], workers[-1] - workers[0]) <= 0.1 * main[0]


if __name__ == "__main__":
    sys.exit(main())
