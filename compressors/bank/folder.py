"""Locks on a bank's folder, and removal of what killed processes left there; importing this imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paredown.compressors.tensor_files.record_names import STATISTICS
from paredown.space.errors import StudyError
from paredown.space.system.locks import held, shared
from paredown.space.system.temporary import abandoned, system_folder


@contextmanager
def bank_in_use(bank: Path | None) -> Iterator[Path]:
    """Yields a bank's folder, which no process can clean while the context is open.

    Leftovers of killed processes are removed first.

    Args:
        bank: The folder, created if missing; None for a temporary one.

    Raises:
        StudyError: If the bank is being cleaned.
        OutputError: If the folder cannot be created.
    """
    if bank is None:
        with system_folder("bank") as temporary:
            yield temporary
        return
    with shared(bank, StudyError(f"the bank {bank} is being cleaned; run the same command again when that is done")):
        for left in left_behind(bank):
            shutil.rmtree(left, ignore_errors=True)
        yield bank


@contextmanager
def bank_alone(bank: Path) -> Iterator[None]:
    """Locks a bank, so that no other process uses it while the context is open.

    Raises:
        StudyError: If another process uses it.
        OutputError: If the folder cannot be written.
    """
    with held(bank, StudyError(f"a search or an apply uses the bank {bank}; wait for it or stop it, then clean")):
        yield


def left_behind(bank: Path) -> Iterator[Path]:
    """Temporary folders in a bank whose process is dead."""
    for parent in (bank, bank / STATISTICS):
        yield from abandoned(parent)
