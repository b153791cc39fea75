"""Progress displays of a search: a live bar in a terminal, plain lines elsewhere, or none."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from paredown.cli.wording import duration
from paredown.search.outcome.outcome import Outcome
from paredown.search.report.report import Reports
from paredown.search.trial import Trial
from paredown.search.trials.counts import worth

PLAIN_SECONDS = 10.0
"""Shortest time between two plain lines of a step [s]; first lines, last trials and new bests ignore it."""


class Silent:
    """Shows no progress; writes the reports."""

    def __init__(self) -> None:
        self.reports = Reports()

    def step(self, name: str, done: int, of: int | None) -> None:
        """Shows nothing."""

    def trial(self, trial: Trial, best: Trial | None, spent: float, of: int | None) -> None:
        """Shows nothing."""

    def expect(self, seconds: float) -> None:
        """Shows nothing."""

    def say(self, text: str) -> None:
        """Shows nothing."""

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """Writes the reports; pictures only from time to time and at the end."""
        self.reports.publish(outcome, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Does nothing: there is nothing to close."""


class Plain(Silent):
    """Shows progress as plain lines, for logs and pipes.

    Args:
        console: Console to print on.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._step, self._last = "", 0.0
        self._clock = Clock()

    def step(self, name: str, done: int, of: int | None) -> None:
        """Prints a line when a step begins, then at most one in `PLAIN_SECONDS`."""
        now = time.monotonic()
        if name != self._step or now - self._last > PLAIN_SECONDS:
            self._step, self._last = name, now
            self.say(name if of is None else f"{name}: {done} of {of}{self._clock.left()}")

    def trial(self, trial: Trial, best: Trial | None, spent: float, of: int | None) -> None:
        """Prints a line for a trial, at most one in `PLAIN_SECONDS`; always for a new best and the last trial."""
        now = time.monotonic()
        is_last = of is not None and spent >= of
        if now - self._last > PLAIN_SECONDS or self._step != "trials" or trial == best or is_last:
            self._step, self._last = "trials", now
            self.say(
                f"{worth(spent, of)}; trial {trial.number}, {described(trial)}; {best_so_far(best)}{self._clock.left()}"
            )

    def expect(self, seconds: float) -> None:
        """Sets the expected time left."""
        self._clock.expect(seconds)

    def say(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Live(Silent):
    """Shows a bar with the step, the time left and the best loss so far.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        self.bars = Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console)
        self._best = ""
        self._task = self.bars.add_task("starting", total=None, note="")
        self._step = ""
        self._clock = Clock()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the bar; its last state stays on the screen."""
        self.bars.stop()

    def step(self, name: str, done: int, of: int | None) -> None:
        """Moves the bar; a new step resets it."""
        if name != self._step:
            self._step = name
            self.bars.reset(self._task, description=name, total=of, completed=0, note=self._best)
        self.bars.update(self._task, completed=done, total=of, note=self._best + self._clock.left())

    def trial(self, trial: Trial, best: Trial | None, spent: float, of: int | None) -> None:
        """Moves the bar of the trials."""
        self._best = f"{worth(spent, of)}, best {best.loss:.3g}" if best else worth(spent, of)
        self.step("trials", int(spent) if of is None else min(int(spent), of), of)

    def expect(self, seconds: float) -> None:
        """Sets the expected time left."""
        self._clock.expect(seconds)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.bars.console.print(text, highlight=False, markup=False)


def telling(console: Console) -> Live | Plain:
    """A live bar for a terminal, plain lines for anything else."""
    return Live(console) if console.is_terminal else Plain(console)


class Clock:
    """Expected end of a search."""

    def __init__(self) -> None:
        self._end = math.inf

    def expect(self, seconds: float) -> None:
        """Sets the expected time left [s], from now; the last call counts."""
        self._end = time.monotonic() + seconds

    def left(self) -> str:
        """``, about 3 min left``, all steps included; empty while unknown."""
        return f", about {duration(max(self._end - time.monotonic(), 0.0))} left" if math.isfinite(self._end) else ""


def described(trial: Trial) -> str:
    """``4 bits, groups of 64: 123,456 bytes, loss 0.0123 ± 0.0004 (95 %)``."""
    return f"{trial.label}: {trial.size_bytes:,} bytes, loss {trial.loss:.4g} ± {trial.half_width:.1g} (95 %)"


def best_so_far(best: Trial | None) -> str:
    """Text of the best trial within the budget, or that there is none yet."""
    return f"best so far {best.loss:.4g} (trial {best.number})" if best else "none within the budget yet"
