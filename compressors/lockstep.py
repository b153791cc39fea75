"""One forward pass over calibration tokens in parts of a fixed size, which run on several cores and meet at chosen modules."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from paredown.compressors.bank import one_thread
from paredown.compressors.calibration import run_base
from paredown.compressors.planned import PlannedModel
from paredown.space.errors import EvaluationError

PART_TOKENS = 2048
"""Tokens of a part, if one sequence has no more [tokens]. The number of cores must not decide: sums over other parts round differently."""

BLOCK = 256
"""Rows and columns of a product that one thread computes; fixed for the same reason."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Meeting = Callable[[Sequence[Tensor]], None]
"""What is done with the inputs of a module, part by part, before any part runs it."""


class Crew:
    """Threads that compute side by side, each with one torch thread; results do not depend on how many there are.

    Args:
        workers: How many.
        pool: The threads.
    """

    def __init__(self, workers: int, pool: ThreadPoolExecutor) -> None:
        self.workers = workers
        self._pool = pool

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The result for each item, in order."""
        return list(self._pool.map(torch.no_grad()(function), items))

    def product(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
        """Sum over the parts of ``left' right``, in the order of the parts; the upper half is mirrored where both are the same.

        Args:
            left: By part, shape ``(tokens, n)``.
            right: By part, shape ``(tokens, m)``.
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
    """A crew for as long as the context is open; the thread that opens it computes with one torch thread, too."""
    with one_thread():
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield Crew(workers, pool)
        finally:
            pool.shutdown(cancel_futures=True)


def parts_of(tokens: Tensor) -> list[slice]:
    """The sequences of each part, as a function of the tokens' shape alone."""
    size = max(1, PART_TOKENS // tokens.shape[1])
    return [slice(start, start + size) for start in range(0, len(tokens), size)]


def run_in_parts(
    planned: PlannedModel, tokens: Tensor, mask: Tensor, meetings: Mapping[nn.Module, Meeting], workers: int
) -> list[Tensor]:
    """Final hidden states by part, without a head, of the plan in place.

    Every part has a thread, which waits at each module with a meeting until all parts are there; of the others, ``workers`` compute
    at a time. So memory holds the states of all parts, as a pass of the whole would, however many cores there are.

    Args:
        planned: The model.
        tokens: Shape ``(sequences, length)``, padded on the right.
        mask: 1 where there is a token.
        meetings: What is done before a module runs, in the thread that called.
        workers: How many parts compute at a time.

    Raises:
        EvaluationError: If not all parts run the same modules in the same order.
    """
    chosen = parts_of(tokens)
    meetings = dict(meetings)
    walk = _Walk(len(chosen), workers)
    hooks = [module.register_forward_pre_hook(walk.wait) for module in meetings]
    if planned.streamed:  # no part enters a block while another is still in the one before
        hooks += [block.register_forward_pre_hook(walk.wait, prepend=True) for block in planned.blocks]
        meetings |= dict.fromkeys(planned.blocks, lambda _: None)
    causal = planned.inventory.causal
    try:
        with planned.side_by_side(len(chosen)):
            return walk.run(
                lambda i: run_base(planned.model, tokens[chosen[i]], mask[chosen[i]], causal=causal), meetings
            )
    finally:
        for hook in hooks:
            hook.remove()


class _Stopped(Exception):
    """Another part failed, or the pass was interrupted."""


class _Walk:
    """Threads that go through a model at the same pace.

    Args:
        parts: How many.
        workers: How many of them compute at a time.
    """

    def __init__(self, parts: int, workers: int) -> None:
        self._turns = threading.Semaphore(workers)
        self._arrivals: SimpleQueue[tuple[int, nn.Module | None, Tensor | BaseException]] = SimpleQueue()
        self._gates: list[SimpleQueue[bool]] = [SimpleQueue() for _ in range(parts)]
        self._own = threading.local()

    def wait(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        """A hook: the thread goes on when all parts have met at the module."""
        self._turns.release()
        self._arrivals.put((self._own.part, module, given[0]))
        goes_on = self._gates[self._own.part].get()
        self._turns.acquire()
        if not goes_on:
            raise _Stopped

    def run(self, forward: Callable[[int], Tensor], meetings: Mapping[nn.Module, Meeting]) -> list[Tensor]:
        """Runs every part to its end, and each meeting when all are there; after an error no thread is left."""
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
                if thread.ident is not None:  # else it could not be started
                    thread.join()

    def _together(self) -> tuple[nn.Module | None, list[Tensor]]:
        """Where all parts have arrived, and with what."""
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
            except BaseException as error:  # raised again in the thread that called
                given = error
        self._arrivals.put((part, None, given))
