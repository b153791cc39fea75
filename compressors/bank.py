"""Every (site, choice) compressed once, stored as it would be deployed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from paredown.compressors.digests import Digests
from paredown.compressors.records import VERSION, about_of, record_path
from paredown.compressors.storage import Tensors, decode_site, encode_site
from paredown.compressors.tensor_file import checked_tensors, stored_sha256, write_tensors
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import OutputError
from paredown.space.site import Site
from paredown.space.statistics import StatisticsOf

CACHE_BYTES = 1 << 30


class Bank:
    """Compressed sites on disk, found by content, and the dense matrices that were used last in memory.

    A record is one safetensors file; it appears whole or not at all, so a fill that was killed goes on where it was, and
    several processes may read and fill one folder. It has a digest: one that was damaged since is made again.

    Args:
        folder: Where records lie; made when the first is written.
        parameters: The original's parameters by name; read, never modified.
        statistics: Of its matrices, by name of the module, for calibrated choices.
        calibration: Fingerprint of the texts that the statistics were collected on.
        cache_bytes: Most bytes of decoded matrices that are kept in memory, beside the last site's; with 0 not even those.
        checkpoint: Folder that the parameters come from, so that their fingerprints can be remembered beside the records.
        say: Called with a line for each damaged record.

    Attributes:
        used: Fingerprints of the records that were asked for.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, Tensor],
        statistics: StatisticsOf | None = None,
        calibration: str = "",
        cache_bytes: int = CACHE_BYTES,
        checkpoint: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.parameters = parameters
        self.statistics = statistics or {}
        self.calibration = calibration
        self.say = say
        self.used: set[str] = set()
        self._digests = Digests(parameters, folder, checkpoint)
        self._decoded: OrderedDict[tuple[str, Choice], Tensors] = OrderedDict()
        self._cache_bytes = self._free = cache_bytes

    def tensors(self, site: Site, choice: Choice) -> Tensors:
        """The tensors that store a site under a choice, compressed now if no record is there; memory-mapped.

        Raises:
            OutputError: If the record cannot be written, or is not read back as it was written.
        """
        if choice == KEEP:
            return encode_site(site, choice, self.parameters, self.statistics)
        path = self.path(site, choice)
        found = self._read(site, choice, path)
        if found is None:
            self.make(site, choice, path)
            found = self._read(site, choice, path)
        if found is None:
            raise OutputError(
                f"{path} cannot be read back as it was written: check the disk, or name another folder with --bank"
            )
        return found

    def make(self, site: Site, choice: Choice, path: Path) -> None:
        """Compresses a site under a choice into its record, in one thread: the same bytes whoever makes them.

        Raises:
            OutputError: If the record cannot be written.
        """
        with one_thread():
            tensors = encode_site(site, choice, self.parameters, self.statistics)
        write_tensors(path, tensors, self._about(site, choice), self.folder)

    def decoded(self, site: Site, choice: Choice) -> Tensors:
        """The float32 parameters that a site computes with under a choice; not to be modified."""
        if choice == KEEP:
            names = [f"{m.module}.{part}" for m in site.members for part in ("weight", "bias")]
            return {name: self.parameters[name].float() for name in names if name in self.parameters}
        key = (site.name, choice)
        if key in self._decoded:
            self._decoded.move_to_end(key)
            return self._decoded[key]
        decoded = decode_site(site, choice, self.tensors(site, choice))
        if not self._cache_bytes:
            return decoded
        self._decoded[key] = decoded
        self._free -= _bytes(decoded)
        while self._free < 0 and len(self._decoded) > 1:
            _, oldest = self._decoded.popitem(last=False)
            self._free += _bytes(oldest)
        return decoded

    def store(self, site: Site, choice: Choice, tensors: Tensors) -> None:
        """Keeps what was compressed elsewhere as the record of a site under a choice.

        Raises:
            OutputError: If the record cannot be written.
        """
        write_tensors(self.path(site, choice), tensors, self._about(site, choice), self.folder)

    def calibrated(self, statistics: StatisticsOf | None, calibration: str) -> Bank:
        """The same folder and original under other statistics: calibrated records are others, all others the same."""
        bank = Bank(self.folder, self.parameters, statistics, calibration, self._cache_bytes // 8, say=self.say)
        bank._digests, bank.used = self._digests, self.used
        return bank

    def holds(self, site: Site, choice: Choice) -> bool:
        """Whether the record is there, undamaged."""
        return choice == KEEP or self._read(site, choice, self.path(site, choice)) is not None

    def sha256(self, site: Site, choice: Choice) -> str | None:
        """The digest of a record's tensors, as the record has it; None where there is no record."""
        return stored_sha256(self.path(site, choice))

    def path(self, site: Site, choice: Choice) -> Path:
        """Where the record of a site under a choice lies: a name made of its content."""
        content = [str(VERSION), str(choice), site.kind]
        for member in site.members:
            content += [member.module, str(member.transposed), member.dtype]
            content += [self._digests[f"{member.module}.{part}"] for part in ("weight", "bias")]
        for norm, spec in site.norm.items():
            content += [norm, spec.dtype, self._digests[norm]]
        if choice.needs:
            content.append(self.calibration)
        name = hashlib.sha256("\n".join(content).encode()).hexdigest()
        self.used.add(name)
        return record_path(self.folder, name)

    def remember(self) -> None:
        """Keeps the fingerprints of the parameters that were asked for, so that no later start reads all weights for them."""
        self._digests.write()

    def _read(self, site: Site, choice: Choice, path: Path) -> Tensors | None:
        """The record, memory-mapped; None where it is missing or damaged."""
        if not path.is_file():
            return None
        try:
            return checked_tensors(path)
        except SafetensorError:
            self.say(f"the record of {site.name} ({choice}) in {self.folder} is damaged: it is made again")
            return None

    def _about(self, site: Site, choice: Choice) -> dict[str, Any]:
        return about_of(site, choice, self.calibration)


@contextmanager
def one_thread() -> Iterator[None]:
    """What must not depend on other threads runs alone: sums, which depend on how many share them, and times, which wait for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
