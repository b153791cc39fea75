"""Reads, checks and loads transformers model folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from paredown.compressors.tensor_files.mapped_safetensors import DTYPES
from paredown.space.errors import CheckpointError
from paredown.space.system.paths import expanded
from paredown.space.tensors import TensorSpec


def resolve(name: str, revision: str | None = None) -> Path:
    """The local folder of a model: the folder itself, or the snapshot of a hub repository.

    Raises:
        CheckpointError: If neither such a folder nor such a repository exists, or it lacks config.json or safetensors.
    """
    folder = expanded(name)
    if not folder.exists():
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise CheckpointError(
                f"no model folder {name}; give a folder with config.json and model.safetensors, or a hub name"
            )
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        except Exception as error:  # the hub raises a dozen unrelated types: offline, gated, unknown, renamed
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"no model folder {name}, and it could not be downloaded from the hub: {reason}"
            ) from None
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder that save_pretrained wrote")
    shards(folder)
    return folder


def shards(folder: Path, stem: str = "model") -> list[Path]:
    """The safetensors files of a model folder, in order; read from the index file if there is one.

    Args:
        folder: The folder.
        stem: Prefix of the file names: ``STEM.safetensors``, or ``STEM.safetensors.index.json``, which names several.

    Raises:
        CheckpointError: If there is no such file, or a file that the index names is missing.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, OSError) as error:
            raise CheckpointError(
                f"{index} is truncated or not an index ({error}); copy or download it again"
            ) from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{folder} lacks {', '.join(missing)}, which its index names; copy or download it again"
            )
        return [folder / name for name in names]
    if not (folder / f"{stem}.safetensors").is_file():
        remedy = "convert the weights with save_pretrained first" if stem == "model" else "copy it again"
        raise CheckpointError(f"{folder} has no {stem}.safetensors; {remedy}")
    return [folder / f"{stem}.safetensors"]


def stored_layout(folder: Path) -> dict[str, TensorSpec]:
    """Dtype and shape of every tensor that a model folder stores, by name.

    Raises:
        CheckpointError: If a file is truncated or not a safetensors file.
    """
    layout: dict[str, TensorSpec] = {}
    for path in shards(folder):
        try:
            layout |= header_of(path)
        except (SafetensorError, OSError, KeyError) as error:
            raise CheckpointError(
                f"{path} is truncated or not a safetensors file ({error}); copy or download it again"
            ) from None
    return layout


def header_of(path: Path) -> dict[str, TensorSpec]:
    """Dtype and shape of every tensor of a safetensors file, by name."""
    with safe_open(path, "np") as file:  # "pt" would map the whole file as memory of the process
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
        return {name: TensorSpec(DTYPES[each.get_dtype()], tuple(each.get_shape())) for name, each in slices.items()}


def config_of(folder: Path) -> Any:
    """The configuration of a model folder.

    Raises:
        CheckpointError: If it is unreadable, names no architecture, or belongs to an encoder-decoder model or a model
            that is compressed already.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # a faulty configuration raises error types of the hub's own
        raise CheckpointError(f"{folder}/config.json: {' '.join(str(error).split())[:200]}") from None
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{folder} is an encoder-decoder model, which cannot be compressed yet; give a causal model or an encoder"
        )
    if not config.architectures:
        raise CheckpointError(
            f'{folder}/config.json names no architecture; add e.g. "architectures": ["LlamaForCausalLM"]'
        )
    if getattr(config, "quantization_config", None) or (folder / "paredown.json").exists():
        raise CheckpointError(f"{folder} is compressed already; give the original model")
    return config


def config_sha256(folder: Path) -> str:
    """SHA-256 of the configuration file."""
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()


def model_class(config: Any) -> Any:
    """The transformers class that the configuration names.

    Raises:
        CheckpointError: If transformers has no such class: another class would silently load something else.
    """
    name = config.architectures[0]
    if not hasattr(transformers, name):
        raise CheckpointError(
            f"transformers has no class {name}; correct architectures in config.json, e.g. LlamaForCausalLM"
        )
    return getattr(transformers, name)


def skeleton(config: Any) -> PreTrainedModel:
    """The model on the meta device, without weights; tied parameters are tied."""
    with torch.device("meta"):
        found = model_class(config)
        model: PreTrainedModel = found(config)
    model.tie_weights()
    model.eval()
    return model


def empty_model(config: Any) -> PreTrainedModel:
    """The float32 model with its buffers computed; every parameter is a `placeholder`."""
    from accelerate import init_empty_weights

    with no_init_weights(), init_empty_weights(include_buffers=False):
        model: PreTrainedModel = model_class(config)(config)
    model.tie_weights()
    model.eval()
    placed = {p: torch.nn.Parameter(placeholder(p.shape), requires_grad=False) for p in model.parameters()}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, placed[parameter])
    return model


def placeholder(shape: Sequence[int]) -> torch.Tensor:
    """A tensor of the given shape that takes no memory: a single NaN, expanded.

    Whatever is computed with it is NaN, so its use cannot go unnoticed.
    """
    return torch.tensor(torch.nan).expand(tuple(shape))


def is_placeholder(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a `placeholder` of more than one element."""
    return tensor.numel() > 1 and not any(tensor.stride())


def load_original(folder: Path, config: Any | None = None) -> PreTrainedModel:
    """The original in float32, the precision in which every plan is scored.

    Raises:
        CheckpointError: If weights are missing, truncated or not finite, or their shape is not the configuration's.
    """
    config = config or config_of(folder)
    stored_layout(folder)
    # A wrong shape is taken from the loading report, because transformers' own error does not name the tensor.
    options = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = model_class(config).from_pretrained(folder, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise missing_weights(folder, config, missing)
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise CheckpointError(
            f"{folder}: {name} has shape {tuple(found)}, config.json requires {tuple(expected)}; correct one of them"
        )
    original: PreTrainedModel = model.eval()
    for name, parameter in original.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"{folder}: {name} holds values that are not finite; give an intact checkpoint")
        parameter.requires_grad_(False)
    return original


def missing_weights(folder: Path, config: Any, missing: Sequence[str]) -> CheckpointError:
    """The error for a checkpoint that lacks weights."""
    return CheckpointError(
        f"{folder} lacks weights of {config.architectures[0]}: {', '.join(missing[:3])}; give the complete checkpoint"
    )


def parameters_of(model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """Parameters and stored buffers by name; a tied parameter appears under its first name only."""
    named: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in named and not any(tensor is other for other in model.parameters()):
            named[name] = tensor
    return named
