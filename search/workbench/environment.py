"""The machine and the versions that a study ran on."""

from __future__ import annotations

import os

import torch

from paredown.compressors.original.origin import cpu_name


def environment() -> dict[str, str | int]:
    """Versions and machine of this run."""
    import platform
    from importlib.metadata import version

    names = ("paredown", "torch", "transformers", "optuna", "numpy", "scipy")
    return {
        **{name: version(name) for name in names},
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
