"""What measured numbers depend on besides texts and choices: weights, configuration and library versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from paredown.compressors.original.weights_digest import weights_sha256
from paredown.compressors.tensor_files.record_names import VERSION
from paredown.space.plan_file import DIGITS, Records
from paredown.space.system.registry import extensions

LIBRARIES = ("torch", "transformers", "numpy")
"""Libraries whose releases may change a measured number in its last digits or more."""

COSMETIC = frozenset(
    {
        "_name_or_path",  # location of the folder
        "_commit_hash",  # revision on the hub; the weights have a fingerprint of their own
        "transformers_version",  # wrote the file; the version that reads it counts, and is in LIBRARIES
        "id2label", "label2id", "problem_type",  # class names of heads that no metric reads
        "output_attentions", "output_hidden_states", "return_dict", "use_cache",  # every call sets them itself
        "initializer_range",  # weights are loaded, not initialised
    }
)  # fmt: skip
"""Configuration keys that no measured number depends on."""


class Origin(BaseModel):
    """What trials, facts, statistics and calibrated records depend on. Data-free records depend on the weights alone.

    The tokenizer is not included: texts have fingerprints as sequences of tokens.

    Attributes:
        weights: Fingerprint of the weight files.
        config: The effective configuration, with defaults and without the keys in `COSMETIC`.
        versions: Versions of the libraries, of paredown's own methods (``methods``), and of all distributions that
            offer extensions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    config: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def of(cls, checkpoint: Path, config: Any, folder: Path | None = None) -> Origin:
        """The origin of a model folder.

        Args:
            checkpoint: The folder.
            config: Its configuration, as transformers reads it.
            folder: The bank's folder, where the fingerprint of the weights is cached.
        """
        versions = {name: version(name) for name in LIBRARIES} | {"methods": str(VERSION)} | extensions()
        return cls(weights=weights_sha256(checkpoint, folder), config=effective(config), versions=versions)

    def sha256(self) -> str:
        """Fingerprint of the whole origin."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def records(self, sha256: Mapping[str, str]) -> Records:
        """What a plan file states about records of this origin; ``sha256`` holds their digests by site."""
        config = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()
        short = {site: digest[:DIGITS] for site, digest in sha256.items()}
        return Records(
            weights=self.weights[:DIGITS],
            config=config[:DIGITS],
            versions=self.versions,
            machine=machine(),
            sha256=short,
        )

    def named(self) -> dict[str, Any]:
        """Each value by a readable name: ``weights``, ``rope_parameters.rope_theta``, ``torch``."""
        return {"weights": self.weights, **flat(self.config), **self.versions}


def machine() -> str:
    """Name of the processor and number of compute threads. Sums may differ in their last digits with either."""
    import torch

    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()


def effective(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values, without the keys in `COSMETIC`."""
    values = {key: value for key, value in config.to_dict().items() if key not in COSMETIC}
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings flattened into one, with keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
