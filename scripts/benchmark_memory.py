"""A model larger than the memory that a process may take goes through search and apply; and memory does not grow with depth.

    python scripts/benchmark_memory.py

First part: a Llama of random weights (only shapes matter here) is written to disk in bfloat16, tensor by tensor. Its weights in
float32, in which plans are scored, take more than the cap. A process of its own, whose anonymous memory the system limits to the
cap (RLIMIT_DATA: every private writable page, the libraries' included), searches and applies the winner. Files that are mapped
read-only are not counted: the system may take their pages back at any time.

Second part: the statistics and the default bank of models of one width and growing depth, streamed, without a cap. The figure is
the peak above what the libraries take.

Peaks are the highest of samples of /proc/PID/status every 10 ms. Exits 1 if the cap was not below the weights, or if the deepest
model took more than a tenth above what the shallowest took.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
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
SHORT = {"calibration": 128, "search": 128, "selection": 128, "held_out": 128, "sequence_length": 64}
CHOICES = ["quantize bits=4 group_size=64 algorithm=round-to-nearest", "quantize bits=8 algorithm=round-to-nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What a process took: seconds, and the most anonymous memory, resident and as RLIMIT_DATA counts it [bytes]."""

    seconds: float
    before: int
    resident: int
    counted: int


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
    peak = {"RssAnon": 0, "VmData": 0}
    while process.exitcode is None:
        peak = {name: max(value, peak[name]) for name, value in _status(process.pid).items()} or peak
        process.join(0.01)
    if process.exitcode:
        raise SystemExit(f"{target.__name__}{arguments} ended with exit code {process.exitcode}")
    return Peak(seconds=time.perf_counter() - started, before=before, resident=peak["RssAnon"], counted=peak["VmData"])


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


def search_and_apply(model: Path, out: Path, trials: int, cap: int) -> None:
    """All under the cap; whatever goes beyond it is refused by the system, and ends the process."""
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    space = {"choices": {"linear": CHOICES, "embedding": CHOICES[1:], "ffn": [], "attention": [], "block": ["drop"]}, "max_drops": 1}
    study = {"model": str(model), "budget": "30%", "trials": trials, "latency": "off", "tokens": SHORT, "space": space, "memory": "64MB"}
    outcome = paredown.search(study, out / "study", workers=1)
    assert outcome.winner is not None
    applied, _ = paredown.apply(out / "study" / "best" / "plan.yaml", model, out / "applied", check=False)
    print(f"  searched: {len(outcome.records)} trials; applied: {applied.size_bytes:,} tensor bytes, {applied.predicted_bytes:,} predicted")


def statistics_and_bank(model: Path, out: Path) -> None:
    """What every search begins with."""
    study = StudyFile.model_validate({"model": str(model), "latency": "off", "tokens": SHORT, "memory": "1MB"})
    Workbench(study, out / "bank", 1).fill_bank()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(8, 2048, 2048), help="layers, hidden size, size of the feed-forward network")
    parser.add_argument("--cap", type=float, default=0.95, help="as a share of the weights in float32")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="*", default=(4, 8, 16))
    parser.add_argument("--width", type=int, nargs=2, default=(128, 256), help="hidden size, size of the feed-forward network")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the temporary folder is made; it must be on a disk")
    options = parser.parse_args()
    machine, failed = environment(), False
    print(f"{machine['cpu']}, torch {machine['torch']}, one thread, one process; bfloat16 on disk, scored in float32")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=".benchmark-") as name:
        root = Path(name).absolute()
        dense = make_model(root / "model", *options.shape)
        cap = int(options.cap * dense)
        layers, hidden, _ = options.shape
        print(f"search and apply: {layers} layers of width {hidden}, {options.trials} trials of {SHORT['search']} tokens")
        peak = watched(search_and_apply, root / "model", root, options.trials, cap)
        print(f"  weights in float32 {dense / MB:.0f} MB; cap {cap / MB:.0f} MB of the whole process; {peak.seconds:.0f} s")
        resident = f"{peak.resident / MB:.0f} MB resident, {peak.before / MB:.0f} MB of it libraries"
        print(f"  peak {peak.counted / MB:.0f} MB as the cap counts; {resident}")
        failed |= dense <= cap
        print(f"statistics and default bank: width {options.width[0]}")
        above = []
        for depth in options.depths:
            dense = make_model(root / f"deep-{depth}", depth, *options.width)
            peak = watched(statistics_and_bank, root / f"deep-{depth}", root / f"bank-{depth}")
            above.append(peak.resident - peak.before)
            print(f"  {depth:>2} layers: weights in float32 {dense / MB:.1f} MB; peak {above[-1] / MB:.1f} MB above the libraries' "
                  f"{peak.before / MB:.0f} MB; {peak.seconds:.0f} s")  # fmt: skip
        failed |= bool(above) and above[-1] > 1.1 * above[0]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
