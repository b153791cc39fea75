"""Reference fronts that searches are compared with: exhaustive for a small space, best known for a large one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.enumeration import Enumeration
from paredown.search.pareto import hypervolume, improvements, lower_left
from paredown.search.workbench.environment import environment
from paredown.search.workbench.workbench import Workbench
from paredown.space.errors import StudyError
from paredown.space.system.files import write_atomically

Points = Sequence[tuple[float, float]]
"""Pairs of size [bytes] and loss."""

CORNER = (1.01, 1.01)
"""Reference point of the hypervolume, with sizes and log losses scaled to [0, 1]."""

LEAST = 1e-6
"""Floor on losses [nats/token]: lower ones count as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Reference front of a problem.

    Attributes:
        front: Sizes and losses, smallest first.
        plans: Number of plans measured for it.
        exhaustive: Whether these are all plans of the space; otherwise a search can beat the front.
    """

    front: tuple[tuple[float, float], ...]
    plans: int
    exhaustive: bool

    @classmethod
    def of(cls, enumeration: Enumeration) -> Truth:
        """Front of an exhaustive enumeration."""
        points = zip(enumeration.sizes.tolist(), enumeration.losses.tolist(), strict=True)
        return cls(front=best_points(points), plans=len(enumeration.losses), exhaustive=True)

    @classmethod
    def read(cls, path: Path, bench: Workbench) -> Truth:
        """Front from a file.

        Raises:
            StudyError: If it was measured on other weights or texts.
        """
        content = json.loads(path.read_text())
        if [content[name] for name in ("weights_sha256", "search_sha256")] != [
            bench.banks.origin.weights,
            bench.texts.sha256["search"],
        ]:
            raise StudyError(
                f"{path} was measured on other weights or texts; name the same model and data, or measure it again"
            )
        front = tuple((size, loss) for size, loss in content["front"])
        return cls(front=front, plans=content["plans"], exhaustive=content["exhaustive"])

    def write(self, path: Path, problem: str, bench: Workbench) -> None:
        """Writes the file, with the fingerprints of the weights and texts that it was measured on."""
        content = {
            "problem": problem,
            "model": bench.study_file.model,
            "plans": self.plans,
            "exhaustive": self.exhaustive,
            "environment": environment(),
            "weights_sha256": bench.banks.origin.weights,
            "search_sha256": bench.texts.sha256["search"],
            "front": self.front,
        }
        write_atomically(path, json.dumps(content, indent=0))

    def at(self, size_bytes: float) -> float:
        """Least loss within a size; infinite below the smallest size."""
        return min((loss for size, loss in self.front if size <= size_bytes), default=np.inf)

    def share(self, points: Points) -> float:
        """Hypervolume of the points as a share of this front's.

        Sizes and log losses are scaled to [0, 1] over this front; the reference point is `CORNER`.
        """
        return self._volume(points) / self._volume(self.front)

    def bound(self, count: int) -> float:
        """Share of the hypervolume that ``count`` plans of the front reach if chosen greedily."""
        left = np.array(self._scaled(self.front))
        chosen: list[tuple[float, float]] = []
        for _ in range(min(count, len(left))):
            best = int(improvements(left, chosen, CORNER).argmax())
            chosen.append((float(left[best, 0]), float(left[best, 1])))
        return hypervolume(chosen, CORNER) / self._volume(self.front)

    def _volume(self, points: Points) -> float:
        return hypervolume(self._scaled(points), CORNER)

    def _scaled(self, points: Points) -> list[tuple[float, float]]:
        """Sizes and log losses of the points, scaled to [0, 1] over the front."""
        (low, worst), (high, best) = self.front[0], self.front[-1]
        most = np.log(max(worst, LEAST) / max(best, LEAST))
        return [
            ((size - low) / (high - low), np.log(max(loss, LEAST) / max(best, LEAST)) / most) for size, loss in points
        ]


def best_points(points: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Non-dominated points, smallest first."""
    found = list(points)
    return tuple(found[i] for i in lower_left(found))
