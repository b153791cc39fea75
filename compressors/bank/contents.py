"""Inventory and clean-up of a bank's folder; importing this imports no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from paredown.compressors.bank.folder import bank_alone, left_behind
from paredown.compressors.tensor_files.record_names import FINGERPRINTS, STATISTICS, about, is_record
from paredown.space.errors import OutputError, StudyError
from paredown.space.system.files import read_json, write_json

USED = "bank.json"
"""File in a study folder that lists the records it needs."""


class UsedFile(BaseModel):
    """Content of `USED`: the name of the statistics of the study's own texts, and fingerprints of records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    statistics: str
    records: list[Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]]


def read_used(path: Path) -> UsedFile:
    """The content of `USED`.

    Raises:
        StudyError: If it is missing or damaged.
    """
    return read_json(path, UsedFile, StudyError, "run the study's search again to rewrite it", sealed=False)


def name_used(path: Path, statistics: str, records: Iterable[str]) -> None:
    """Adds records to `USED`, so that cleaning the bank spares them.

    Args:
        path: The file; a missing or damaged one is replaced, since the search asks for every record that it needs.
        statistics: Name of the statistics of the study's own texts.
        records: Fingerprints of the records.
    """
    try:
        before = read_used(path).records
    except StudyError:
        before = []
    write_json(path, UsedFile(statistics=statistics, records=sorted({*before, *records})).model_dump())


@dataclass(slots=True, kw_only=True)
class Count:
    """Number of files, and their total size [bytes]."""

    records: int = 0
    bytes: int = 0

    def add(self, path: Path) -> None:
        """Adds a file, or every file in a folder."""
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                self.records += 1
                self.bytes += file.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Content of a bank; sizes are those of the files.

    Attributes:
        folder: The bank's folder.
        models: Folders of the originals that filled it.
        methods: Records by method, with each step named: ``prune then quantize``.
        calibrations: Records that depend on calibration texts, by fingerprint of the texts.
        statistics: Statistics files, by the same fingerprint.
        forgotten: Records that this version of paredown never reads: torn, or of another version.
        unfinished: Files of processes that were killed while writing.
    """

    folder: str
    models: list[str] = field(default_factory=list)
    methods: dict[str, Count] = field(default_factory=dict)
    calibrations: dict[str, Count] = field(default_factory=dict)
    statistics: dict[str, Count] = field(default_factory=dict)
    forgotten: Count = field(default_factory=Count)
    unfinished: Count = field(default_factory=Count)

    @property
    def total(self) -> Count:
        """Number of readable records, and size of all files."""
        counts = [*self.methods.values(), *self.statistics.values(), self.forgotten, self.unfinished]
        return Count(
            records=sum(count.records for count in self.methods.values()), bytes=sum(count.bytes for count in counts)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """Result of a clean-up.

    Attributes:
        unfinished: Files of processes that were killed while writing.
        forgotten: Records that this version never reads.
        unneeded: Records and statistics that none of the kept studies needs.
        removed: Whether the files were removed; False after a dry run.
    """

    unfinished: Count = field(default_factory=Count)
    forgotten: Count = field(default_factory=Count)
    unneeded: Count = field(default_factory=Count)
    removed: bool = False

    @property
    def bytes(self) -> int:
        """Size of all files to remove [bytes]."""
        return self.unfinished.bytes + self.forgotten.bytes + self.unneeded.bytes


def bank_folder(folder: Path) -> Path:
    """The bank's folder: the given folder itself, or the bank inside a study folder.

    Raises:
        StudyError: If the folder is neither.
    """
    bank = folder / "bank" if (folder / "study.yaml").is_file() else folder
    if not bank.is_dir() or not (any(_files(bank)) or _statistics(bank)):
        raise StudyError(
            f"{folder} holds no bank of compressed sites; give a study folder, or the folder that --bank named"
        )
    return bank


def holdings(folder: Path) -> Holdings:
    """Content of a folder's bank, read from the headers of its files.

    Raises:
        StudyError: If there is no bank.
    """
    bank = bank_folder(folder)
    found = Holdings(folder=str(bank), models=_models(bank))
    for path in left_behind(bank):
        found.unfinished.add(path)
    for path in _files(bank):
        if (known := about(path)) is None:
            found.forgotten.add(path)
        else:
            steps = " then ".join(step.split()[0] for step in known["choice"].split(" then "))
            found.methods.setdefault(steps, Count()).add(path)
            if "calibration" in known:
                found.calibrations.setdefault(known["calibration"], Count()).add(path)
    for statistics in _statistics(bank):
        found.statistics.setdefault(statistics.name, Count()).add(statistics)
    return found


def clean(folder: Path, keep: Sequence[Path] = (), *, dry_run: bool = True) -> Cleaning:
    """Removes files that no search can find again. With studies to keep, also removes whatever none of them needs.

    The next search recomputes a record that it misses, so cleaning can cost time but never a result.

    Args:
        folder: The bank's folder, or a study folder, whose records are then kept as well.
        keep: Study folders. If empty, every record that a search can find stays.
        dry_run: Whether to count the files without removing them.

    Raises:
        StudyError: If there is no bank, a folder to keep names no records, or another process uses the bank.
        OutputError: If a file cannot be removed.
    """
    bank = bank_folder(folder)
    own = [folder] if bank != folder else []
    needed = set().union(*(_needed(study) for study in [*own, *keep])) if keep else None
    with nullcontext() if dry_run else bank_alone(bank):
        return _cleaned(bank, needed, dry_run=dry_run)


def _cleaned(bank: Path, needed: set[str] | None, *, dry_run: bool) -> Cleaning:
    found = Cleaning(removed=not dry_run)
    calibrations = set()
    for path in left_behind(bank):
        _remove(path, found.unfinished, dry_run=dry_run)
    for path in list(_files(bank)):
        known = about(path)
        if known is None:
            _remove(path, found.forgotten, dry_run=dry_run)
        elif needed is not None and path.parent.name + path.stem not in needed:
            _remove(path, found.unneeded, dry_run=dry_run)
        else:
            calibrations.add(known.get("calibration"))
    for statistics in _statistics(bank):
        if needed is not None and statistics.name not in calibrations | needed:
            _remove(statistics, found.unneeded, dry_run=dry_run)
    return found


def _files(bank: Path) -> Iterator[Path]:
    """Paths of the records; other files in the folder are skipped."""
    for path in sorted(bank.glob("[0-9a-f][0-9a-f]/*")):
        if path.is_file() and not path.is_symlink() and is_record(bank, path):
            yield path


def _statistics(bank: Path) -> list[Path]:
    folders = sorted((bank / STATISTICS).glob("[0-9a-f]" * 64))
    return [path for path in folders if path.is_dir() and not path.is_symlink()]


def _models(bank: Path) -> list[str]:
    found = set()
    for path in (bank / FINGERPRINTS).glob("*.json"):
        try:
            found.add(str(json.loads(path.read_text())["checkpoint"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def _needed(study: Path) -> set[str]:
    if not (study / USED).is_file():
        raise StudyError(
            f"{study} names no records of a bank; give a study folder whose search filled one, or leave it out"
        )
    found = read_used(study / USED)
    return {*found.records, found.statistics}


def _remove(path: Path, count: Count, *, dry_run: bool) -> None:
    """Counts a file or a folder of files, and removes it unless this is a dry run."""
    count.add(path)
    if dry_run:
        return
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot remove {path}: {error.strerror}; files removed so far are gone, the rest remain"
        ) from None
