"""Filling a bank with what is missing, in this process or in several of one thread each."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from paredown.compressors.bank import Bank
from paredown.space import child
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import WorkerError, is_out_of_memory
from paredown.space.interruption import stop_if_asked
from paredown.space.site import Site

PATIENCE_SECONDS = 5.0
"""What takes no longer is done in this process: another one takes longer to import torch and transformers."""

LONGEST_END_SECONDS = 5.0
STOP_SECONDS = 0.2
"""While processes work, this one looks so often whether a stop is asked for."""

REMEDY = "what is finished is kept: run the same command with fewer --workers, it goes on"

Pair = tuple[Site, Choice]
Job = tuple[Site, Choice, Path]
Progress = Callable[[int, int], None]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(
    bank: Bank,
    pairs: Sequence[Pair],
    *,
    checkpoint: Path,
    statistics: Path | None = None,
    workers: int = 1,
    patience: float = PATIENCE_SECONDS,
    progress: Progress = lambda done, of: None,
) -> int:
    """Compresses every pair that the bank does not hold; the records are the same whatever the number of workers.

    Args:
        bank: The bank; what it holds is left alone, and a fill that was stopped goes on.
        pairs: Sites and choices.
        checkpoint: Folder that the bank's parameters come from; the processes read it.
        statistics: Folder of the bank's statistics.
        workers: Most processes; with 1 none is started.
        patience: Seconds that this process works alone before it starts others [s].
        progress: Called with how many of how many pairs are there.

    Returns:
        How many were made.

    Raises:
        OutputError: If a record cannot be written.
        WorkerError: If a process dies; what was made stays.
    """
    wanted = {(site.name, choice): site for site, choice in pairs if choice != KEEP and site.kind != "block"}
    missing = [(site, choice, bank.path(site, choice)) for (_, choice), site in wanted.items()]
    missing = [job for job in missing if not job[2].is_file()]
    bank.remember()
    there = len(wanted) - len(missing)
    done = 0

    def finished() -> None:
        nonlocal done
        done += 1
        progress(there + done, len(wanted))

    progress(there, len(wanted))
    groups = deque(grouped(missing, getattr(bank.statistics, "files", {})))
    started = time.monotonic()
    _alone(bank, groups, lambda: workers == 1 or time.monotonic() - started < patience, finished)
    if groups:
        _together(bank, groups, min(workers, len(groups)), checkpoint, statistics, finished)
    return done


def grouped(jobs: Sequence[Job], files: Mapping[str, str]) -> list[list[Job]]:
    """Jobs in groups that share no statistics, the largest first; within a group those of one site follow each other.

    Args:
        jobs: What is to be made.
        files: File of the statistics of a module's inputs, by module.
    """
    of_file: dict[str, str] = {}  # each file points to another of its group, the last to itself

    def root(name: str) -> str:
        while of_file.setdefault(name, name) != name:
            name = of_file[name]
        return name

    for site, _, _ in jobs:
        names = [files.get(member.module, member.module) for member in site.members]
        for name in names[1:]:
            of_file[root(name)] = root(names[0])
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        module = job[0].members[0].module
        groups.setdefault(root(files.get(module, module)), []).append(job)
    return sorted(
        groups.values(), key=lambda group: -sum(member.parameters for site, _, _ in group for member in site.members)
    )


def _alone(bank: Bank, groups: deque[list[Job]], goes_on: Callable[[], bool], finished: Callable[[], None]) -> None:
    """Works in this process until all is made or it shall not go on; what is left stays in ``groups``."""
    while groups:
        while groups[0]:
            stop_if_asked()
            if not goes_on():
                return
            bank.make(*groups[0][0])
            del groups[0][0]
            finished()
        groups.popleft()


def _together(
    bank: Bank,
    groups: deque[list[Job]],
    count: int,
    checkpoint: Path,
    statistics: Path | None,
    finished: Callable[[], None],
) -> None:
    """Hands a group at a time to each of several processes; works here until the first of them is ready."""
    setup = (checkpoint, statistics, bank.folder, bank.calibration)
    with _workers(count, setup) as workers:
        _alone(bank, groups, lambda: not wait(list(workers), timeout=0), finished)
        left: dict[Connection, list[Job]] = {connection: [] for connection in workers}
        while groups or any(left.values()):
            stop_if_asked()
            for connection in wait(list(left), timeout=STOP_SECONDS):
                assert isinstance(connection, Connection)
                jobs = left[connection]
                try:
                    fault = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise _death(workers[connection], jobs) from None
                if fault is not None:
                    raise _fault(fault, jobs)
                if jobs:  # the first message says that it is ready
                    del jobs[0]
                    finished()
                if not jobs and groups:
                    left[connection] = groups.popleft()
                    connection.send(left[connection])
                elif not jobs:
                    del left[connection]


@contextmanager
def _workers(count: int, setup: object) -> Iterator[dict[Connection, subprocess.Popen[bytes]]]:
    """Processes that compress, by the connection to each; ended when the block is left, however that comes about.

    They are in groups of their own, so that Ctrl+C reaches this process alone, and end by themselves where it is killed.
    """
    program = Path(__file__).with_name("fill_process.py")
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    workers: dict[Connection, subprocess.Popen[bytes]] = {}
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            with theirs:
                number = theirs.fileno()
                workers[ours] = subprocess.Popen(
                    child.command(program, str(number)),
                    pass_fds=[number],
                    env=os.environ | one_thread,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    process_group=0,
                )
            ours.send(setup)
        yield workers
    finally:
        for connection, process in workers.items():
            connection.close()
            process.terminate()
        for process in workers.values():
            try:
                process.wait(LONGEST_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _death(process: subprocess.Popen[bytes], jobs: Sequence[Job]) -> WorkerError:
    code = process.wait()
    how = f"killed by signal {-code}, probably for want of memory" if code < 0 else f"exit code {code}"
    return WorkerError(f"a process that was {_where(jobs)} died ({how}); {REMEDY}")


def _fault(fault: BaseException, jobs: Sequence[Job]) -> BaseException:
    """What a process could not do; where memory was short, with the remedy."""
    if is_out_of_memory(fault):
        return WorkerError(f"a process had not enough memory {_where(jobs)}; {REMEDY}")
    return fault


def _where(jobs: Sequence[Job]) -> str:
    return f"to compress {jobs[0][0].name} ({jobs[0][1]})" if jobs else "to begin"
