"""The front that searches are held against: of every plan of a small space, or the best that is known of a large one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paredown.search.enumeration import Enumeration
from paredown.search.pareto import hypervolume, improvements, lower_left
from paredown.search.workbench import Workbench, environment
from paredown.space.errors import StudyError
from paredown.space.files import write_atomically

Points = Sequence[tuple[float, float]]
"""Sizes and losses."""

CORNER = (1.01, 1.01)
"""From where hypervolume is measured, sizes and log losses scaled to one."""

LEAST = 1e-6
"""Losses below count as that [nats/token]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The best front of a problem.

    Attributes:
        front: Sizes and losses, smallest first.
        plans: How many were measured for it.
        exhaustive: Whether they are all that the space has; otherwise a search may beat it.
    """

    front: tuple[tuple[float, float], ...]
    plans: int
    exhaustive: bool

    @classmethod
    def of(cls, enumeration: Enumeration) -> Truth:
        """Of every plan."""
        points = zip(enumeration.sizes.tolist(), enumeration.losses.tolist(), strict=True)
        return cls(front=best_points(points), plans=len(enumeration.losses), exhaustive=True)

    @classmethod
    def read(cls, path: Path, bench: Workbench) -> Truth:
        """The front of a file.

        Raises:
            StudyError: If it was measured on other weights or texts.
        """
        content = json.loads(path.read_text())
        if [content[name] for name in ("weights_sha256", "search_sha256")] != [
            bench.origin.weights,
            bench.texts_sha256["search"],
        ]:
            raise StudyError(
                f"{path} was measured on other weights or texts; name the same model and data, or make it again"
            )
        front = tuple((size, loss) for size, loss in content["front"])
        return cls(front=front, plans=content["plans"], exhaustive=content["exhaustive"])

    def write(self, path: Path, problem: str, bench: Workbench) -> None:
        """Writes the file, with what it was measured on."""
        content = {
            "problem": problem,
            "model": bench.question.model,
            "plans": self.plans,
            "exhaustive": self.exhaustive,
            "environment": environment(),
            "weights_sha256": bench.origin.weights,
            "search_sha256": bench.texts_sha256["search"],
            "front": self.front,
        }
        write_atomically(path, json.dumps(content, indent=0))

    def at(self, size_bytes: float) -> float:
        """Least loss within a size; infinite below the smallest."""
        return min((loss for size, loss in self.front if size <= size_bytes), default=np.inf)

    def share(self, points: Points) -> float:
        """Hypervolume of the points as a share of this front's: of size, and of the logarithm of the loss, each scaled to one
        over this front, measured from its far corner, a hundredth beyond."""
        return self._volume(points) / self._volume(self.front)

    def bound(self, count: int) -> float:
        """The greatest share that so many plans of the front reach, chosen one after the other."""
        left = np.array(self._scaled(self.front))
        chosen: list[tuple[float, float]] = []
        for _ in range(min(count, len(left))):
            best = int(improvements(left, chosen, CORNER).argmax())
            chosen.append((float(left[best, 0]), float(left[best, 1])))
        return hypervolume(chosen, CORNER) / self._volume(self.front)

    def _volume(self, points: Points) -> float:
        return hypervolume(self._scaled(points), CORNER)

    def _scaled(self, points: Points) -> list[tuple[float, float]]:
        """Sizes, and logarithms of losses, each from 0 to 1 over the front."""
        (low, worst), (high, best) = self.front[0], self.front[-1]
        most = np.log(max(worst, LEAST) / max(best, LEAST))
        return [
            ((size - low) / (high - low), np.log(max(loss, LEAST) / max(best, LEAST)) / most) for size, loss in points
        ]


def best_points(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Those that no other beats, smallest first."""
    found = list(points)
    return tuple(found[i] for i in lower_left(found))
