"""A bank filled by several processes, which may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.fill import Pair, fill, grouped
from paredown.compressors.calibration.collect import collect
from paredown.compressors.calibration.statistics_folder import StatisticsFolder
from paredown.compressors.original.checkpoint import load_original, parameters_of
from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import PlanError, WorkerError
from paredown.space.site import Inventory, Site
from paredown.space.statistics import Statistics
from shared import ROOT

TEXTS = (
    "quantize bits=3 group_size=16 algorithm=gptq",
    "quantize bits=3 group_size=16",
    "quantize bits=4 group_size=32",
    "cluster clusters=8",
)
CHOICES = [parse_choice(text) for text in TEXTS]
NARROW = parse_choice("prune-neurons sparsity=0.5 then quantize bits=4")

Folders = tuple[Path, Path]


class Slow(Bank):
    """A bank that takes its time: other processes come to do most of its work."""

    made = 0

    def make(self, site: Site, choice: Choice, path: Path) -> None:
        time.sleep(2)
        super().make(site, choice, path)
        self.made += 1


def opened(model: Path, statistics: Path, folder: Path, kind: type[Bank] = Bank) -> Bank:
    parameters = {name: tensor.detach() for name, tensor in parameters_of(load_original(model)).items()}
    return kind(folder, parameters, StatisticsFolder(statistics), "texts", checkpoint=model)


def pairs_of(inventory: Inventory) -> list[Pair]:
    pairs: list[Pair] = [
        (site, choice) for site in inventory.leaves if site.kind == "linear" for choice in (KEEP, *CHOICES)
    ]
    return pairs + [(site, NARROW) for site in inventory.parents if site.kind == "ffn"]


@pytest.fixture(scope="module")
def folders(
    pico: Callable[[str], Path], inventory: Callable[[str], Inventory], tmp_path_factory: pytest.TempPathFactory
) -> Folders:
    """A model, and the statistics of its inputs."""
    model, statistics = pico("llama"), tmp_path_factory.mktemp("statistics")
    tokens = torch.randint(0, 128, (8, 32), generator=torch.Generator().manual_seed(0))
    collect(load_original(model), inventory("llama"), tokens, torch.ones_like(tokens), statistics)
    return model, statistics


@pytest.fixture(scope="module")
def serial(folders: Folders, inventory: Callable[[str], Inventory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that one process filled."""
    folder = tmp_path_factory.mktemp("serial")
    fill(opened(*folders, folder), pairs_of(inventory("llama")), checkpoint=folders[0])
    return folder


def records(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("??/*.safetensors")}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.02)


def test_a_fill_goes_on_and_makes_nothing_twice(
    folders: Folders, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """Not for the same study nor for another on the same folder; what is kept and blocks take no record."""
    pairs = pairs_of(inventory("llama"))
    blocks: list[Pair] = [(site, parse_choice("drop")) for site in inventory("llama").parents if site.kind == "block"]
    wanted = sum(choice != KEEP for _, choice in pairs)
    seen: list[tuple[int, int]] = []
    bank = opened(*folders, tmp_path)
    assert fill(bank, pairs[:20], checkpoint=folders[0]) == sum(choice != KEEP for _, choice in pairs[:20])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("??/*")}
    made = fill(
        bank, [*pairs, *pairs, *blocks], checkpoint=folders[0], progress=lambda done, of: seen.append((done, of))
    )
    assert made == wanted - len(before) > 0
    assert seen == [(done, wanted) for done in range(len(before), wanted + 1)]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert fill(opened(*folders, tmp_path), pairs, checkpoint=folders[0], workers=4, patience=0) == 0
    assert len(records(tmp_path)) == wanted


def test_sites_that_read_the_same_go_to_the_same_process(
    folders: Folders, inventory: Callable[[str], Inventory]
) -> None:
    """No two groups read the same statistics; every job is in one; a site's follow each other.

    The largest group comes first.
    """
    files = StatisticsFolder(folders[1]).files
    jobs = [(site, choice, Path(str(number))) for number, (site, choice) in enumerate(pairs_of(inventory("llama")))]
    groups = grouped(jobs, files)
    assert sorted(job[2].name for group in groups for job in group) == sorted(job[2].name for job in jobs)
    read = [{files[member.module] for site, _, _ in group for member in site.members} for group in groups]
    assert sum(map(len, read)) == len(set().union(*read))
    assert (
        len(groups) == 6
    )  # of two blocks: what reads the first norm, the output of the attention, the feed-forward network
    for group in groups:
        names = [site.name for site, _, _ in group]
        assert [names[0], *(b for a, b in zip(names, names[1:], strict=False) if a != b)] == list(dict.fromkeys(names))
    weights = [sum(member.parameters for site, _, _ in group for member in site.members) for group in groups]
    assert weights == sorted(weights, reverse=True)


def test_records_are_made_by_one_thread(
    folders: Folders, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """So that they are the same on every machine; afterwards there are as many as before."""
    seen = []

    class Watched(Mapping[str, Statistics]):
        def __getitem__(self, module: str) -> Statistics:
            seen.append(torch.get_num_threads())
            return StatisticsFolder(folders[1])[module]

        def __iter__(self) -> Iterator[str]:
            return iter(StatisticsFolder(folders[1]))

        def __len__(self) -> int:
            return 1

    bank = opened(*folders, tmp_path)
    bank.statistics = Watched()
    torch.set_num_threads(2)
    try:
        bank.tensors(inventory("llama")["model.layers.0.mlp.up_proj"], CHOICES[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(seen) == {1}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found through /proc")
def test_processes_make_the_same_records_and_one_that_is_killed_is_said(
    folders: Folders, serial: Path, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """Bit by bit those of one process; what was made stays, and the next fill goes on."""
    bank = opened(*folders, tmp_path, Slow)
    pairs = pairs_of(inventory("llama"))

    def kill() -> None:
        until(lambda: len(records(tmp_path)) > bank.made + 4)
        os.kill(children(os.getpid())[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    message = (
        r"a worker process died while (starting|compressing .*) \(killed by signal 9, .*\); finished .* fewer --workers"
    )
    with pytest.raises(WorkerError, match=message):
        while True:  # where all is made before the kill, once more with an empty bank
            fill(bank, pairs, checkpoint=folders[0], statistics=folders[1], workers=2, patience=0)
            for path in tmp_path.glob("??/*"):
                path.unlink()
            bank.made = 0
    killer.join()
    assert children(os.getpid()) == []
    made = records(tmp_path)
    assert len(made) > bank.made
    fill(opened(*folders, tmp_path), pairs, checkpoint=folders[0])
    assert made.items() <= records(tmp_path).items()
    assert records(tmp_path) == records(serial)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found through /proc")
def test_processes_end_when_the_one_that_started_them_is_killed(
    folders: Folders, serial: Path, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """kill -9 loses nothing that was finished, and leaves nobody behind."""
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1], f'{sys.argv[1]}/tests']\n"
        "from tests.compressors.bank import test_fill as t\n"
        "from paredown.compressors.original.find_sites import inventory_of\n"
        "model, statistics, folder = map(Path, sys.argv[2:])\n"
        "bank = t.opened(model, statistics, folder, t.Slow)\n"
        "pairs = t.pairs_of(inventory_of(model))\n"
        "t.fill(bank, pairs, checkpoint=model, statistics=statistics, workers=2, patience=0)\n"
    )
    arguments = [str(ROOT), *map(str, folders), str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        until(lambda: bool(children(process.pid)) and len(records(tmp_path)) >= 2)
        workers = children(process.pid)
        process.kill()
        process.wait()
    made = records(tmp_path)
    until(lambda: not any(map(is_running, workers)), seconds=2)
    fill(opened(*folders, tmp_path), pairs_of(inventory("llama")), checkpoint=folders[0])
    assert made.items() <= records(tmp_path).items()
    assert records(tmp_path) == records(serial)


def test_a_fault_in_a_process_is_raised_here(
    folders: Folders, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """As it would be without processes; there is more to do than this process could do before they begin."""
    sites = [site for site in inventory("llama").leaves if site.kind == "linear"]
    calibrated = [parse_choice(f"quantize bits={bits} group_size=16 algorithm=gptq") for bits in (2, 3, 4, 5, 6, 8)]
    with pytest.raises(PlanError, match="second_moment of the inputs was not collected"):
        fill(
            opened(*folders, tmp_path, Slow),
            [(site, choice) for site in sites for choice in calibrated],
            checkpoint=folders[0],
            workers=2,
            patience=0,
        )
