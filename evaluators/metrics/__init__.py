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
        share_of: Name of the size that a ratio is a share of.
        size: Size of the original's outputs at each token; a ratio is the distance over the mean size.
        encoders: Whether it is for encoders; otherwise for causal language models. Only theirs may be ratios.

    Raises:
        ValueError: If it has neither a unit nor a size, or both.
    """

    title: str
    distance: Callable[[Tensor, Tensor], Tensor]
    unit: str = ""
    share_of: str = ""
    size: Callable[[Tensor], Tensor] | None = None
    encoders: bool = False

    def __post_init__(self) -> None:
        if self.size is None:
            fits = bool(self.unit) and not self.share_of
        else:
            fits = self.encoders and bool(self.share_of) and not self.unit
        if not fits:
            raise ValueError("a metric has a unit, or is a ratio for encoders with size and share_of")

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


def usual_metric(name: str) -> str:
    """Name of the metric of sensitivities, for the models that a metric is for."""
    return metric_for("auto", causal=not metrics[name].encoders)


import_folder(__name__, list(__path__))
