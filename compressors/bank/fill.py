"""Fills a bank with its missing records, in this process or in several single-threaded processes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from paredown.compressors.bank.bank import Bank
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import WorkerError, is_out_of_memory
from paredown.space.site import Site
from paredown.space.system import child
from paredown.space.system.interruption import stop_if_asked

PATIENCE_SECONDS = 5.0
"""Time that `fill` works alone before it starts other processes [s].

Shorter fills finish sooner alone: another process takes longer to import torch and transformers."""

STOP_SECONDS = 0.2
"""Longest wait between two checks for a requested stop while other processes work [s]."""

REMEDY = "finished records are kept; run the same command with fewer --workers to resume"

Pair = tuple[Site, Choice]
Job = tuple[Site, Choice, Path]
Progress = Callable[[int, int], None]


def cores() -> int:
    """Number of CPU cores that this process may use."""
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
    """Compresses every pair that the bank does not hold. The records do not depend on the number of workers.

    Args:
        bank: The bank; existing records stay, so a stopped fill resumes.
        pairs: Sites and choices.
        checkpoint: Folder of the bank's parameters; the processes read it.
        statistics: Folder of the bank's statistics.
        workers: Maximum number of processes; 1 starts none.
        patience: Time that this process works alone before it starts others [s].
        progress: Called with the number of pairs in the bank and the number of pairs.

    Returns:
        Number of records made.

    Raises:
        OutputError: If a record cannot be written.
        WorkerError: If a process dies; finished records stay.
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
    """Jobs in groups that share no statistics, the group with most weights first; a group keeps the order of its jobs.

    Args:
        jobs: Records to make.
        files: File of each module's input statistics, by module name.
    """
    of_file: dict[str, str] = {}  # union-find: each file points to another of its group, the root to itself

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
    """Works in this process until all jobs are done or ``goes_on`` is false; remaining jobs stay in ``groups``."""
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
    """Hands one group at a time to each of several processes; works alone until the first of them is ready."""
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
                if jobs:  # a process's first message only says that it is ready
                    del jobs[0]
                    finished()
                if not jobs and groups:
                    left[connection] = groups.popleft()
                    connection.send(left[connection])
                elif not jobs:
                    del left[connection]


@contextmanager
def _workers(count: int, setup: object) -> Iterator[dict[Connection, child.Child]]:
    """Starts compressing processes and yields them by connection; ends them when the context closes for any reason."""
    program = Path(__file__).with_name("fill_worker.py")
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    workers: dict[Connection, child.Child] = {}
    try:
        for _ in range(count):
            ours, theirs = Pipe()
            with theirs:
                number = theirs.fileno()
                workers[ours] = child.started(
                    program, str(number), environment=os.environ | one_thread, handles=[number]
                )
            ours.send(setup)
        yield workers
    finally:
        for connection in workers:
            connection.close()
        child.end(workers.values())


def _death(process: child.Child, jobs: Sequence[Job]) -> WorkerError:
    code = process.wait()
    how = f"killed by signal {-code}, probably out of memory" if code < 0 else f"exit code {code}"
    return WorkerError(f"a worker process died while {_where(jobs)} ({how}); {REMEDY}")


def _fault(fault: BaseException, jobs: Sequence[Job]) -> BaseException:
    """The error that a process reported; running out of memory becomes a `WorkerError` with the remedy."""
    if is_out_of_memory(fault):
        return WorkerError(f"a worker process ran out of memory while {_where(jobs)}; {REMEDY}")
    return fault


def _where(jobs: Sequence[Job]) -> str:
    return f"compressing {jobs[0][0].name} ({jobs[0][1]})" if jobs else "starting"
