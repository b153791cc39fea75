"""Metrics, which trials minimise; each file of this folder registers its metric on import.

Like the methods, these files import torch only inside the functions that touch tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.space.errors import StudyError
from paredown.space.system.registry import Registry, import_folder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A distance of a model's outputs from the original's, per token.

    Outputs are log-probabilities of the next token, shape ``(sequences, length, vocabulary)``; of encoders, the final
    hidden states, ``(sequences, length, hidden)``.

    Attributes:
        title: What it is, for reports.
        distance: Distance of the second outputs from the first, the original's, at each token; shape
            ``(sequences, length)``, never negative.
        unit: Unit of a value; empty for a ratio.
        share_of: For a ratio: what it is a share of.
        size: For a ratio: at each token, of the original's outputs, what the distance is divided by the mean of.
        encoders: Whether it is for encoders; otherwise for causal language models.
    """

    title: str
    distance: Callable[[Tensor, Tensor], Tensor]
    unit: str = ""
    share_of: str = ""
    size: Callable[[Tensor], Tensor] | None = None
    encoders: bool = False

    @property
    def axis(self) -> str:
        """The title with the unit, for pictures."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def unit_in_words(self) -> str:
        """The unit, for plan files."""
        return self.unit or f"share of the {self.share_of}"


metrics: Registry[Metric] = Registry("metric", group="paredown.metrics", entry=Metric)


def metric_for(name: str, *, causal: bool) -> str:
    """Name of the metric that a study file asks for; ``auto`` is ``kl``, or ``relative-error`` for encoders.

    Raises:
        StudyError: If the metric is for models of the other kind.
        UnknownNameError: If there is no such metric.
    """
    if name == "auto":
        return "kl" if causal else "relative-error"
    if metrics[name].encoders == causal:
        raise StudyError(
            f"metric {name} is for {'encoders' if causal else 'causal language models'} only; set metric: auto"
        )
    return name


import_folder(__name__, list(__path__))
