"""The fresh process of `verify`: loads a folder as its users will, and writes the outputs of the model.

It is run by path. For target ``transformers`` nothing of paredown is imported, and the report says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file


def main(folder: Path, work: Path, *, own: bool, causal: bool) -> None:
    """Loads ``folder`` in float32 and in bfloat16 and runs ``work/inputs.safetensors`` through both."""
    inputs = load_file(work / "inputs.safetensors")["input_ids"]
    exact, report = load(folder, torch.float32, own=own, causal=causal)
    with torch.no_grad():
        outputs = {"float32": states(exact, inputs, causal=causal)}
        if causal:
            outputs["incremental"] = incremental(exact, inputs)
        del exact
        fast, _ = load(folder, torch.bfloat16, own=own, causal=causal)
        outputs["bfloat16"] = states(fast, inputs, causal=causal).float()
        if causal:
            fast.generate(
                inputs[:1, :4],
                attention_mask=torch.ones_like(inputs[:1, :4]),
                max_new_tokens=4,
                do_sample=False,
                pad_token_id=0,
            )
    save_file({name: value.contiguous() for name, value in outputs.items()}, work / "outputs.safetensors")
    report["imported_paredown"] = any(name.partition(".")[0] == "paredown" for name in sys.modules)
    (work / "report.json").write_text(json.dumps(report))


def load(folder: Path, dtype: torch.dtype, *, own: bool, causal: bool) -> tuple[Any, dict[str, Any]]:
    """The model, and its missing and unexpected keys; paredown's own loader raises an error for them instead."""
    if own:
        from paredown.deploy.load import load as load_own

        return load_own(folder, dtype), {"missing": [], "unexpected": []}
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    found: Any = transformers.AutoModelForCausalLM if causal else getattr(transformers, architecture)
    model, info = found.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    return model.eval(), {
        "missing": sorted(map(str, info["missing_keys"])),
        "unexpected": sorted(map(str, [*info["unexpected_keys"], *info["mismatched_keys"]])),
    }


def states(model: Any, inputs: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Logits of a causal model; last hidden states of an encoder."""
    if causal:
        logits: torch.Tensor = model(input_ids=inputs, use_cache=False).logits
        return logits
    hidden: torch.Tensor = model(input_ids=inputs, output_hidden_states=True).hidden_states[-1]
    return hidden


def incremental(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Logits with the cache: half of the tokens at once, then the others one by one."""
    half = inputs.shape[1] // 2
    result = model(input_ids=inputs[:, :half], use_cache=True)
    logits = [result.logits]
    for place in range(half, inputs.shape[1]):
        result = model(input_ids=inputs[:, place : place + 1], cache=result.cache, use_cache=True)
        logits.append(result.logits)
    return torch.cat(logits, dim=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), own=sys.argv[3] == "paredown", causal=sys.argv[4] == "causal")
