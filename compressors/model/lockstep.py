"""One forward pass over calibration tokens, split into parts that run on several cores and meet at chosen modules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from paredown.compressors.bank.bank import one_thread
from paredown.compressors.calibration.collect import run_base
from paredown.compressors.model.planned_model import PlannedModel
from paredown.space.errors import EvaluationError

PART_TOKENS = 2048
"""Maximum size of a part, unless a single sequence is longer [tokens].

It must not depend on the number of cores: sums over differently sized parts round differently."""

BLOCK = 256
"""Rows and columns of the part of a product that one thread computes; fixed for the same reason."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Meeting = Callable[[Sequence[Tensor]], None]
"""Function that receives the inputs of a module, one tensor per part, before any part runs the module."""


class Crew:
    """Threads that compute in parallel, each with one torch thread. Results do not depend on their number.

    Args:
        workers: Number of threads.
        pool: The threads.
    """

    def __init__(self, workers: int, pool: ThreadPoolExecutor) -> None:
        self.workers = workers
        self._pool = pool

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of a function for each item, in order."""
        return list(self._pool.map(torch.no_grad()(function), items))

    def product(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Sum of ``left' right`` over the parts, added in the order of the parts; shape ``(n, m)``.

        If both arguments are the same object, only the upper half is computed and then mirrored.

        Args:
            left: One tensor per part, shape ``(tokens, n)``.
            right: One tensor per part, shape ``(tokens, m)``.
        """
        rows, columns = left[0].shape[1], right[0].shape[1]
        total = torch.empty(rows, columns)

        def fill(corner: tuple[int, int]) -> None:
            across, down = (slice(start, start + BLOCK) for start in corner)
            found = torch.zeros_like(total[across, down])
            for one, other in zip(left, right, strict=True):
                found.addmm_(one[:, across].T, other[:, down])
            total[across, down] = found
            if left is right and corner[0] != corner[1]:
                total[down, across] = found.T

        corners = [
            (i, j) for i in range(0, rows, BLOCK) for j in range(0, columns, BLOCK) if left is not right or i <= j
        ]
        self.map(fill, corners)
        return total


@contextmanager
def crew(workers: int) -> Iterator[Crew]:
    """Yields a crew. While the context is open, the calling thread computes with one torch thread, too."""
    with one_thread():
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield Crew(workers, pool)
        finally:
            pool.shutdown(cancel_futures=True)


def parts_of(tokens: Tensor) -> list[slice]:
    """Slice of the sequences in each part; depends only on the shape of the tokens."""
    size = max(1, PART_TOKENS // tokens.shape[1])
    return [slice(start, start + size) for start in range(0, len(tokens), size)]


def run_in_parts(
    planned: PlannedModel, tokens: Tensor, mask: Tensor, meetings: Mapping[nn.Module, Meeting], workers: int
) -> list[Tensor]:
    """Final hidden states of each part under the plan in place, without the head.

    Each part has a thread, which waits at every module with a meeting until all parts have arrived. At most ``workers``
    threads compute at a time. Memory holds the states of all parts, as one pass over all tokens would, for any number
    of cores.

    Args:
        planned: The model.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 for a token, 0 for padding.
        meetings: Function to call before a module runs, by module; runs in the calling thread.
        workers: Maximum number of parts that compute at a time.

    Raises:
        EvaluationError: If the parts do not all run the same modules in the same order.
    """
    chosen = parts_of(tokens)
    meetings = dict(meetings)
    walk = _Walk(len(chosen), workers)
    hooks = [module.register_forward_pre_hook(walk.wait) for module in meetings]
    if planned.stream:  # no part enters a block while another is in the previous one
        hooks += [block.register_forward_pre_hook(walk.wait, prepend=True) for block in planned.modules.blocks]
        meetings |= dict.fromkeys(planned.modules.blocks, lambda _: None)
    causal = planned.inventory.causal
    try:
        with planned.stream.side_by_side(len(chosen)) if planned.stream else nullcontext():
            return walk.run(
                lambda i: run_base(planned.model, tokens[chosen[i]], mask[chosen[i]], causal=causal), meetings
            )
    finally:
        for hook in hooks:
            hook.remove()


class _Stopped(Exception):
    """Ends the thread of a part when another part failed or the pass was interrupted."""


class _Walk:
    """Threads that go through a model in lockstep.

    Args:
        parts: Number of threads.
        workers: Maximum number of threads that compute at a time.
    """

    def __init__(self, parts: int, workers: int) -> None:
        self._turns = threading.Semaphore(workers)
        self._arrivals: SimpleQueue[tuple[int, nn.Module | None, Tensor | BaseException]] = SimpleQueue()
        self._gates: list[SimpleQueue[bool]] = [SimpleQueue() for _ in range(parts)]
        self._own = threading.local()

    def wait(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        """Forward pre-hook that blocks the thread until all parts have met at the module."""
        self._turns.release()
        self._arrivals.put((self._own.part, module, given[0]))
        goes_on = self._gates[self._own.part].get()
        self._turns.acquire()
        if not goes_on:
            raise _Stopped

    def run(self, forward: Callable[[int], Tensor], meetings: Mapping[nn.Module, Meeting]) -> list[Tensor]:
        """Runs every part to its end, and each meeting when all parts have arrived. No thread outlives an error."""
        threads = [
            threading.Thread(target=self._part, args=(part, forward), daemon=True) for part in range(len(self._gates))
        ]
        try:
            for thread in threads:
                thread.start()
            while True:
                module, given = self._together()
                if module is None:
                    return given
                meetings[module](given)
                del given  # the parts hold what they still need
                for gate in self._gates:
                    gate.put(True)
        finally:
            for gate in self._gates:
                gate.put(False)
            for thread in threads:
                if thread.ident is not None:  # only a thread that started can be joined
                    thread.join()

    def _together(self) -> tuple[nn.Module | None, list[Tensor]]:
        """The module at which all parts have arrived (None: the end), and what each part brings."""
        found: dict[int, Tensor] = {}
        places: set[nn.Module | None] = set()
        while len(found) < len(self._gates):
            part, module, given = self._arrivals.get()
            if isinstance(given, BaseException):
                raise given
            found[part] = given
            places.add(module)
        if len(places) > 1:
            raise EvaluationError(
                "the model does not run the same layers for all texts; compress its plans without in_order"
            )
        return places.pop(), [found[part] for part in range(len(found))]

    def _part(self, part: int, forward: Callable[[int], Tensor]) -> None:
        self._own.part = part
        torch.set_num_threads(1)
        given: Tensor | BaseException
        with self._turns:
            try:
                with torch.no_grad():
                    given = forward(part)
            except BaseException as error:  # raised again in the calling thread
                given = error
        self._arrivals.put((part, None, given))
