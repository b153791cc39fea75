"""The bank: every (site, choice) compressed once and stored as it would be deployed."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from paredown.compressors.bank.encoding import Tensors, decode_site, encode_site
from paredown.compressors.original.lazy_weights import Weights
from paredown.compressors.original.weights_digest import Digests
from paredown.compressors.tensor_files.record_names import VERSION, about_of, offered_by, record_path
from paredown.compressors.tensor_files.tensor_file import checked_tensors, stored_sha256, write_tensors
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import OutputError
from paredown.space.site import Site
from paredown.space.statistics import StatisticsOf

CACHE_BYTES = 1 << 30
"""Default upper bound on the decoded matrices that a bank keeps in memory [bytes]."""


class Bank:
    """Content-addressed store of compressed sites on disk, with a cache of recently used dense matrices in memory.

    A record is one safetensors file. It appears whole or not at all, so a killed fill resumes where it stopped, and
    several processes may read and fill one folder. Each record has a digest; a damaged record is recomputed.

    Args:
        folder: Folder of the records; created with the first record.
        parameters: The original's parameters by name; never modified.
        statistics: Statistics of the original's matrices by module name, for calibrated choices.
        calibration: Fingerprint of the texts that the statistics were collected on.
        cache_bytes: Upper bound on the decoded matrices kept in memory [bytes]; the last site's always stay. 0 keeps
            none at all.
        checkpoint: Folder of the parameters, so that their fingerprints can be cached beside the records.
        say: Called with a line for each damaged record.

    Attributes:
        used: Fingerprints of the records that were requested.
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
        """The tensors that store a site under a choice, memory-mapped; compresses the site now if it has no record.

        Raises:
            OutputError: If the record cannot be written, or does not read back as it was written.
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
                f"{path} does not read back as it was written; check the disk, or name another folder with --bank"
            )
        return found

    def make(self, site: Site, choice: Choice, path: Path) -> None:
        """Compresses a site under a choice and writes its record.

        One thread computes, so that every process writes the same bytes.

        Raises:
            OutputError: If the record cannot be written.
        """
        with one_thread():
            tensors = encode_site(site, choice, self.parameters, self.statistics)
        write_tensors(path, tensors, self._about(site, choice), self.folder)

    def decoded(self, site: Site, choice: Choice) -> Tensors:
        """The float32 parameters that a site computes with under a choice; do not modify them."""
        if choice == KEEP:
            return self.originals(f"{m.module}.{part}" for m in site.members for part in ("weight", "bias"))
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

    def originals(self, names: Iterable[str]) -> Tensors:
        """The original's parameters of these names that exist, in float32; do not modify them."""
        return {name: self.parameters[name].float() for name in names if name in self.parameters}

    def replacement(self, site: Site, choice: Choice) -> Tensors:
        """Every parameter of a site under a choice; what a structured choice does not store is the original's."""
        decoded = self.decoded(site, choice)
        return self.decoded(site, KEEP) | decoded if site.structured else decoded

    def store(self, site: Site, choice: Choice, tensors: Tensors) -> None:
        """Writes tensors that were compressed elsewhere as the record of a site under a choice.

        Raises:
            OutputError: If the record cannot be written.
        """
        write_tensors(self.path(site, choice), tensors, self._about(site, choice), self.folder)

    def calibrated(self, statistics: StatisticsOf | None, calibration: str) -> Bank:
        """A bank over the same folder and original with other statistics.

        Calibrated records differ between the two; data-free records are shared.
        """
        bank = Bank(self.folder, self.parameters, statistics, calibration, self._cache_bytes // 8, say=self.say)
        bank._digests, bank.used = self._digests, self.used
        return bank

    def holds(self, site: Site, choice: Choice) -> bool:
        """Whether the record exists and is undamaged; always true for ``keep``."""
        return choice == KEEP or self._read(site, choice, self.path(site, choice)) is not None

    def sha256(self, site: Site, choice: Choice) -> str | None:
        """The digest that a record states for its tensors; None if there is no record."""
        return stored_sha256(self.path(site, choice))

    def path(self, site: Site, choice: Choice) -> Path:
        """Path of the record of a site under a choice: a hash of everything that the record depends on."""
        content = [str(VERSION), str(choice), site.kind]
        for member in site.members:
            content += [member.module, str(member.transposed), member.dtype]
            content += [self._digests[f"{member.module}.{part}"] for part in ("weight", "bias")]
        for norm, spec in site.norm.items():
            content += [norm, spec.dtype, self._digests[norm]]
        if choice.needs:
            content.append(self.calibration)
        content += [f"{distribution} {version}" for distribution, version in sorted(offered_by(choice).items())]
        name = hashlib.sha256("\n".join(content).encode()).hexdigest()
        self.used.add(name)
        return record_path(self.folder, name)

    def remember(self) -> None:
        """Writes the fingerprints of the requested parameters to disk, so that later runs need not read all weights."""
        self._digests.write()

    def _read(self, site: Site, choice: Choice, path: Path) -> Tensors | None:
        """The record, memory-mapped; None if it is missing or damaged."""
        if not path.is_file():
            return None
        try:
            return checked_tensors(path)
        except SafetensorError:
            self.say(f"the record of {site.name} ({choice}) in {self.folder} is damaged: it is recomputed")
            return None

    def _about(self, site: Site, choice: Choice) -> dict[str, Any]:
        return about_of(site, choice, self.calibration)


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch computes with one thread.

    It is used for sums, whose rounding depends on the number of threads, and for timings, which wait for all threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def decoded_bytes(parameters: Mapping[str, Tensor]) -> int:
    """Bound on the decoded matrices that a bank of these parameters keeps in memory [bytes].

    It is 0 for a streamed model, which requests each matrix once per pass.
    """
    return 0 if isinstance(parameters, Weights) else CACHE_BYTES
