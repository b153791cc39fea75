r"""Trains the bundled language model on the sources of Python's standard library.

    torchrun --nproc-per-node 2 scripts/train_demo_model.py --minutes 90 --out checkpoints/demo
    python scripts/train_demo_model.py --architecture gpt2 --layers 12 --hidden 128 --batch 4 --learning-rate 2.5e-3 \
        --eager --threads 1 --minutes 42 --out checkpoints/gpt2

The first command made the bundled model. The second makes the GPT-2 of the problems that were added after the search
was fixed. One process per core, or per accelerator. The learning rate follows the clock, so a run ends after
--minutes. The same command resumes from the last checkpoint. Prints the held-out loss in nats and the perplexity per
token.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from paredown.evaluators.documents import (
    SETS,
    SHINGLE_LINES,
    Document,
    share_seen,
    shingles,
    split_documents,
    standard_library,
    without_near_duplicates,
)

END = "<|endoftext|>"
WINDOW = 512
PATTERN = r"\n| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[ \t]+(?=\S)|\s"


def texts() -> tuple[list[Document], list[Document], list[Document]]:
    """Training modules, training tests and held-out modules; training holds no passage of a measured set."""
    split = split_documents(standard_library())
    measured = {shingle for name in SETS for document in split[name] for shingle in shingles(document.text)}
    parts = []
    for part in (split["training"], list(without_near_duplicates(standard_library(tests=True)))):
        parts.append([Document(name=d.name, text=without_passages(d.text, measured)) for d in part])
    return parts[0], parts[1], split["held-out"]


def without_passages(text: str, seen: set[int]) -> str:
    """The text without the lines of any shingle in ``seen``."""
    lines = text.splitlines(keepends=True)
    solid = [i for i, line in enumerate(lines) if line.strip()]
    refused: set[int] = set()
    for start, shingle in enumerate(shingles(text)):
        if shingle in seen:
            refused.update(solid[start : start + SHINGLE_LINES])
    return "".join(line for i, line in enumerate(lines) if i not in refused)


def train_tokenizer(documents: list[Document]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((d.text for d in documents), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=WINDOW)


def stream(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> Tensor:
    ids: list[int] = []
    for document in documents:
        ids += tokenizer(document.text + END, verbose=False)["input_ids"]
    return torch.tensor(ids)


def windows(tokens: Tensor, shift: int = 0) -> Tensor:
    tokens = tokens[shift:]
    return tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)


def shape(architecture: str, layers: int, hidden: int) -> PretrainedConfig:
    """A Llama (feed-forward width twice the hidden size, two key-value heads, heads of 64) or a GPT-2 (heads of 32)."""
    common = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    if architecture == "gpt2":
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        fused = {"activation_function": "gelu_pytorch_tanh"}  # GPT-2's own activation as one fused operation
        return GPT2Config(
            n_embd=hidden, n_layer=layers, n_head=hidden // 32, n_positions=WINDOW, **no_dropout, **fused, **common
        )
    return LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=2, max_position_embeddings=WINDOW, **common,
    )  # fmt: skip


def loss_of(model: PreTrainedModel, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, batches: Tensor) -> float:
    return sum(float(loss_of(model, batch)) * len(batch) for batch in batches.split(8)) / len(batches)


def epochs(library: Tensor, tests: Tensor, seed: int):
    """Shuffled windows without end: per epoch all of the library and a third of the tests, cut at a new offset."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        shift = int(torch.randint(WINDOW, (), generator=generator))
        other = windows(tests, shift)
        other = other[torch.randperm(len(other), generator=generator)[: len(other) // 3]]
        together = torch.cat([windows(library, shift), other])
        yield from together[torch.randperm(len(together), generator=generator)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/demo"))
    parser.add_argument("--batch", type=int, default=8, help="windows of 512 tokens per process and step")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--architecture", choices=("llama", "gpt2"), default="llama")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 128")
    parser.add_argument("--threads", type=int, help="threads per process; by default the processes share all cores")
    parser.add_argument("--eager", action="store_true", help="do not compile; on one thread compilation gains nothing")
    options = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) // world))

    library, tests, held_out = texts()
    if rank == 0:
        seen = {s for d in library + tests for s in shingles(d.text)}
        leak = sum(share_seen(d.text, seen) for d in held_out) / len(held_out)
        print(
            f"{len(library)} modules, {len(tests)} tests, {len(held_out)} held out, {leak:.2%} of their shingles seen",
            flush=True,
        )
        options.out.mkdir(parents=True, exist_ok=True)
        if not (options.out / "tokenizer.json").exists():
            train_tokenizer(library).save_pretrained(options.out)
    if world > 1:
        dist.barrier()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.out)
    library_ids, test_ids, held_out_ids = (stream(tokenizer, part) for part in (library, tests, held_out))
    evaluation = windows(held_out_ids)[:: world * 4]

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape(options.architecture, options.layers, options.hidden)).to(device)
    state_file, step, before = options.out / "state.json", 0, 0.0
    if state_file.exists():
        step, before = json.loads(state_file.read_text()).values()
        model.load_state_dict(load_file(options.out / "checkpoint.safetensors"), strict=False)
    compiled = loss_of if options.eager else torch.compile(loss_of)
    embedded = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()
    }
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embedded]
    others = [p for p in model.parameters() if p.ndim < 2 or id(p) in embedded]
    muon = torch.optim.Muon(matrices[rank::world], lr=0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=0, betas=(0.9, 0.95), weight_decay=0.0)

    batches = epochs(library_ids, test_ids, seed=1000 * step + rank)
    start, saved, average = time.monotonic(), time.monotonic(), 0.0
    if rank == 0:
        print(
            f"{sum(p.numel() for p in model.parameters()):,} parameters, "
            f"{len(library_ids):,} + {len(test_ids):,} tokens",
            flush=True,
        )
    while True:
        clock = torch.tensor([before + time.monotonic() - start])
        if world > 1:
            dist.broadcast(clock, 0)
        done = clock.item() / 60 / options.minutes
        rate = options.learning_rate * min(1, (step + 1) / 100, (1 - done) / 0.6)
        if done >= 1:
            break
        for group in (*muon.param_groups, *adam.param_groups):
            group["lr"] = rate
        loss = compiled(model, torch.stack([next(batches) for _ in range(options.batch)]).to(device))
        loss.backward()
        if world > 1:
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
            dist.all_reduce(gradient)
            for p, part in zip(
                model.parameters(), gradient.div_(world).split([p.numel() for p in model.parameters()]), strict=True
            ):
                p.grad.copy_(part.view_as(p))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        model.zero_grad()
        if world > 1:
            for i, matrix in enumerate(matrices):
                dist.broadcast(matrix.data, i % world)
        step += 1
        average += (loss.item() - average) / 50 if average else loss.item()
        if rank == 0 and step % 25 == 0:
            print(f"step {step} minute {clock.item() / 60:.1f} loss {average:.3f} rate {rate:.2g}", flush=True)
        if rank == 0 and time.monotonic() - saved > 300:
            saved = time.monotonic()
            save_file(
                {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"},
                options.out / "checkpoint.safetensors",
            )
            state_file.write_text(json.dumps({"step": step, "seconds": clock.item()}))
            nats = held_out_loss(model, evaluation.to(device))
            print(f"held out {nats:.4f} nats, perplexity {math.exp(nats):.2f} (every 8th window)", flush=True)
    if rank == 0:
        model.to(torch.bfloat16).save_pretrained(options.out)
        nats = held_out_loss(
            AutoModelForCausalLM.from_pretrained(options.out, dtype=torch.float32), windows(held_out_ids)
        )
        characters = sum(len(d.text) for d in held_out) / len(held_out_ids)
        print(f"steps {step}, tokens {step * world * options.batch * WINDOW:,}, characters a token {characters:.2f}")
        bits = nats / math.log(2) / characters
        print(f"held out {nats:.4f} nats, perplexity {math.exp(nats):.3f} per token, {bits:.3f} bits a character")


if __name__ == "__main__":
    main()
