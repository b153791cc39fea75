"""Memory limits of the process, and how freed memory returns to the system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from paredown.space.budget import Budget

SHARE = 0.6
"""Fraction of the available memory for weights; the rest is for decoded matrices, activations and logits."""

LARGE_BYTES = 1 << 17
"""Size above which a freed allocation returns to the system [bytes].

This is glibc's initial threshold, which glibc raises by itself. With 4 MB, tensors below it left holes on the heap:
2.6 MB per block of width 1024."""

M_MMAP_THRESHOLD = -3
"""Parameter number for ``mallopt``, from ``malloc.h``."""

CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of the container [bytes]: cgroup v2, then v1."""


def memory_bytes(text: str) -> int:
    """Memory that a study's ``memory`` allows for weights [bytes].

    Args:
        text: A size such as ``8GB``, or ``auto`` for `SHARE` of the available memory.
    """
    return int(SHARE * available_bytes()) if text == "auto" else Budget.parse(text).bytes_of(0, 0)


def available_bytes() -> int:
    """The least of the machine's available memory, the container's limit and the process's limits [bytes]."""
    limits = [_machine_bytes()]
    for path in map(Path, CONTAINER):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    try:
        import resource
    except ImportError:  # Windows
        return min(limits)
    limits += [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return min(limit for limit in limits if limit != resource.RLIM_INFINITY)


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30


def give_back_large() -> None:
    """Makes the C library return large tensors' memory to the system as soon as it is freed, where it supports that.

    Otherwise glibc keeps tensors below 32 MB on its heap, with holes between them: several times a block's weights.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
