"""What measured numbers depend on beside texts and choices: weights, configuration, and the libraries that compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from paredown.compressors.digests import weights_sha256
from paredown.compressors.records import VERSION
from paredown.space.plan_file import DIGITS, Records

LIBRARIES = ("torch", "transformers", "numpy")
"""Libraries whose releases may change a measured number in its last digits or more."""

COSMETIC = frozenset(
    {
        "_name_or_path",  # where the folder lay
        "_commit_hash",  # of the hub's repository; the weights have a fingerprint of their own
        "transformers_version",  # that wrote the file; the one that reads it counts, and is among the libraries
        "id2label", "label2id", "problem_type",  # names of classes of heads that no metric reads
        "output_attentions", "output_hidden_states", "return_dict", "use_cache",  # what a call gives back: each call says so itself
        "initializer_range",  # of weights that are loaded instead
    }
)  # fmt: skip
"""Keys of a configuration that no measured number depends on."""


class Origin(BaseModel):
    """What trials, facts, statistics and calibrated records depend on; data-free records depend on the weights alone.

    The tokenizer is not among it: texts have fingerprints as sequences of tokens.

    Attributes:
        weights: Fingerprint of the weight files.
        config: The effective configuration, defaults written out, without what is `COSMETIC`.
        versions: Of libraries, and of paredown's own methods (``methods``).
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
            folder: The bank's, where the fingerprint of the weights is remembered.
        """
        versions = {name: version(name) for name in LIBRARIES} | {"methods": str(VERSION)}
        return cls(weights=weights_sha256(checkpoint, folder), config=effective(config), versions=versions)

    def sha256(self) -> str:
        """Fingerprint of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def records(self, sha256: Mapping[str, str]) -> Records:
        """What a plan file says of records that were made here, by site their digests."""
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
        """Each value by a name that a person knows: ``weights``, ``rope_parameters.rope_theta``, ``torch``."""
        return {"weights": self.weights, **flat(self.config), **self.versions}


def machine() -> str:
    """The processor, and how many threads compute: sums may differ in their last digits with either."""
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
    """A configuration as plain JSON, without what is `COSMETIC`."""
    values = {key: value for key, value in config.to_dict().items() if key not in COSMETIC}
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
