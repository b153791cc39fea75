"""A model larger than the memory that a process may take goes through search and apply; and memory does not grow with depth.

    python scripts/benchmark_memory.py

First part: a Llama of random weights (only shapes matter here) is written to disk in bfloat16, tensor by tensor. Its weights in
float32, in which plans are scored, take a multiple of the cap. A process of its own, whose memory the system limits to the cap
(RLIMIT_DATA: every private writable page of the process, those of Python, torch and all other libraries included), searches and
applies the winner: statistics, a bank with GPTQ, sensitivities, trials, finalists compressed in order and from three draws of the
texts. Files that are mapped read-only are not counted: the system may take their pages back at any time. To keep it short, one
matrix of every fifth block has choices, all others are kept.

Second part: the statistics and the default bank of models of one width and growing depth, streamed, without a cap, all in one
process: what a process of several takes hangs on which choices it happens to get. The figures are peaks of anonymous memory above
what the libraries take.

Third part: the same of a model that fits in memory, the demo's, filled by two processes beside the one that collected the statistics.

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
DEMO = Path(__file__).parents[1] / "studies/models/demo"
TIMES = 1.5
"""How often the cap goes into the weights, at least."""

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
    """What a process took.

    Attributes:
        seconds: From its libraries being loaded to its end.
        before: Anonymous memory that the libraries take [bytes].
        resident: The most anonymous memory [bytes].
        counted: The most that RLIMIT_DATA counts [bytes].
        worker: The most anonymous memory of a process that it started [bytes].
        together: The most that it and those that it started took at one time [bytes].
    """

    seconds: float
    before: int
    resident: int
    counted: int
    worker: int
    together: int


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
    """All under the cap; whatever goes beyond it is refused by the system, and ends the process."""
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
    if outcome.winner is None:
        raise SystemExit("no plan won")
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.seconds.items())
    print(f"  {steps}", flush=True)
    applied, _ = paredown.apply(out / "study" / "best" / "plan.yaml", model, out / "applied", check=False)
    print(f"  searched: {len(outcome.records)} trials, {len(outcome.refits)} plans compressed in order; "
          f"applied: {applied.size_bytes:,} tensor bytes, {applied.predicted_bytes:,} predicted")  # fmt: skip
    if applied.size_bytes != applied.predicted_bytes:
        raise SystemExit("other bytes than predicted")


def statistics_and_bank(model: Path, out: Path, settings: dict[str, Any], workers: int) -> None:
    """What every search begins with."""
    study = StudyFile.model_validate({"model": str(model), "latency": "off", **settings})
    Workbench(study, out / "bank", workers).fill_bank()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=(40, 1024, 1024),
        help="layers, hidden size, size of the feed-forward network",
    )
    parser.add_argument("--cap", type=int, default=640, help="MB that the process may take")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument(
        "--depths", type=int, nargs="*", default=(4, 8, 16), help="of the second part; none leaves it out"
    )
    parser.add_argument(
        "--width", type=int, nargs=2, default=(128, 256), help="hidden size, size of the feed-forward network"
    )
    parser.add_argument(
        "--bank", type=Path, default=DEMO, help="model of the third part; a folder that is none leaves it out"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="where the temporary folder is made; it must be on a disk"
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
    """The first part; whether the weights are as much larger than the cap as they shall be."""
    dense = make_model(root / "model", *shape)
    print(
        f"search and apply: {shape[0]} layers of width {shape[1]}, {trials} trials of {TOKENS['search']} tokens",
        flush=True,
    )
    peak = watched(search_and_apply, root / "model", root, trials, cap)
    print(
        f"  weights in float32 {dense / MB:.0f} MB, {dense / cap:.2f} times the cap of {cap / MB:.0f} MB; {peak.seconds:.0f} s"
    )
    resident = f"{peak.resident / MB:.0f} MB resident, {peak.before / MB:.0f} MB of it libraries"
    print(f"  peak {peak.counted / MB:.0f} MB as the cap counts; {resident}")
    return dense >= TIMES * cap


def flat_in_depth(root: Path, depths: Sequence[int], width: tuple[int, int]) -> bool:
    """The second part; whether the deepest model takes no more than the shallowest."""
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
            f"  {depth:>2} layers: weights in float32 {dense / MB:.1f} MB; peak {peaks[-1] / MB:.1f} MB above the libraries' "
            f"{peak.before / MB:.0f} MB; {peak.seconds:.0f} s",
            flush=True,
        )
    return peaks[-1] <= 1.1 * peaks[0]


def default_bank(model: Path, root: Path) -> None:
    """The third part."""
    peak = watched(statistics_and_bank, model, root / "default", {}, 2)
    print(f"statistics and default bank of {model.name}, in memory, two processes: {peak.seconds:.0f} s")
    print(
        f"  peak {peak.resident / MB:.0f} MB, {peak.before / MB:.0f} MB of it libraries; of a worker {peak.worker / MB:.0f} MB; "
        f"of all three at one time {peak.together / MB:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
