"""Who uses a bank's folder, and what killed processes left there; importing this imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paredown.compressors.records import STATISTICS
from paredown.space.errors import StudyError
from paredown.space.locks import held
from paredown.space.temporary import abandoned, system_folder


@contextmanager
def bank_in_use(bank: Path | None) -> Iterator[Path]:
    """A bank's folder, which nobody cleans meanwhile; what killed processes left in it is removed first.

    Args:
        bank: The folder, made if it is missing; None for a temporary one.

    Raises:
        StudyError: If it is being cleaned.
        OutputError: If it cannot be made.
    """
    if bank is None:
        with system_folder("bank") as temporary:
            yield temporary
        return
    with held(
        bank, StudyError(f"the bank {bank} is being cleaned; run the same command again when that is done"), shared=True
    ):
        for left in left_behind(bank):
            shutil.rmtree(left, ignore_errors=True)
        yield bank


@contextmanager
def bank_alone(bank: Path) -> Iterator[None]:
    """A bank that no other process uses meanwhile.

    Raises:
        StudyError: If one does.
        OutputError: If the folder cannot be written.
    """
    with held(bank, StudyError(f"a search or an apply uses the bank {bank}; wait for it or stop it, then clean")):
        yield


def left_behind(bank: Path) -> Iterator[Path]:
    """The temporary folders of a bank whose process is dead."""
    for parent in (bank, bank / STATISTICS):
        yield from abandoned(parent)
