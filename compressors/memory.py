"""How much memory a process may take."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from paredown.space.budget import Budget

SHARE = 0.6
"""Of what is available, for weights; the rest is for decoded matrices, activations and logits."""

LARGE_BYTES = 1 << 17
"""As glibc has it before it raises it by itself. With 4 MB, what is smaller left holes on the heap: 2.6 MB a block of width 1024."""

M_MMAP_THRESHOLD = -3
"""Of ``mallopt`` in ``malloc.h``."""

CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes(text: str) -> int:
    """Bytes that a study's ``memory`` allows for weights: a size such as ``8GB``, or ``auto`` for a share of what is available."""
    return int(SHARE * available_bytes()) if text == "auto" else Budget.parse(text).bytes_of(0, 0)


def available_bytes() -> int:
    """What the machine has left, or the container or the process is allowed, whichever is least."""
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
    """From now on memory of large tensors goes back to the system as soon as they are let go, where the C library can do that.

    glibc else keeps tensors below 32 MB on its heap, with holes between them: several times a block's weights.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
