"""The fresh process of `verify`: opens a folder in an engine as its users will, and writes the outputs of the model.

It is run by path and loads the engine's file by path, too: it imports of paredown only what the engine imports.
"""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def main(folder: Path, work: Path, program: str, *, causal: bool) -> None:
    """Opens ``folder`` in float32 and in bfloat16 and runs ``work/inputs.safetensors`` through both."""
    engine, inputs = loaded(program), load_file(work / "inputs.safetensors")["input_ids"]
    exact = engine.open_folder(folder, torch.float32, causal=causal)
    report = {"missing": list(exact.missing), "unexpected": list(exact.unexpected)}
    with torch.no_grad():
        outputs = {"float32": exact.outputs(inputs)}
        if causal:
            outputs["incremental"] = incremental(exact, inputs)
        del exact
        fast = engine.open_folder(folder, torch.bfloat16, causal=causal)
        outputs["bfloat16"] = fast.outputs(inputs).float()
        if causal:
            fast.generate(inputs[:1, :4], 4)
    save_file({name: value.contiguous() for name, value in outputs.items()}, work / "outputs.safetensors")
    imported = any(name.partition(".")[0] == "paredown" for name in sys.modules)
    (work / "report.json").write_text(json.dumps(report | {"imported_paredown": imported}))


def loaded(program: str) -> Any:
    """The module in a file."""
    spec = spec_from_file_location("engine", program)
    assert spec is not None and spec.loader is not None  # a Python file always has both
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def incremental(opened: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Logits with the cache: half of the tokens at once, then the others one by one."""
    half = inputs.shape[1] // 2
    singles = [inputs[:, place : place + 1] for place in range(half, inputs.shape[1])]
    return torch.cat([opened.prefill(inputs[:, :half]), *map(opened.decode, singles)], dim=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], causal=sys.argv[4] == "causal")
