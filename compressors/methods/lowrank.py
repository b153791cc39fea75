"""Low-rank factorisation of a matrix."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from paredown.space.choice import Choice, MatrixChoice, Part, Shape, methods
from paredown.space.site import Kind, Member
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLE = 32
"""A rank given as a share is rounded down to a multiple of this if it is at least that, to fit kernels and groups."""

DAMPING = 0.01
"""Added to the eigenvalues of the second moment, as a share of their mean.

Directions that calibration did not see are then approximated as by plain SVD.
"""


class Factored(MatrixChoice):
    """Base of the methods with two factors: their rank and how they are computed."""

    rank: int | None = Field(default=None, ge=1, description="inner dimension of the two factors")
    rank_fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="rank as a share of the full rank, instead of rank; from 32 up rounded down to a multiple of 32",
    )
    algorithm: Literal["svd", "whitened"] = Field(
        default="svd",
        description="svd minimises the error of the weights; whitened, of the outputs on the calibration texts",
    )

    @model_validator(mode="after")
    def _one_rank(self) -> Self:
        if (self.rank is None) == (self.rank_fraction is None):
            raise ValueError("give either rank or rank_fraction")
        return self

    def rank_of(self, shape: Shape) -> int:
        """The rank for a matrix of this shape."""
        if self.rank is not None:
            return self.rank
        assert self.rank_fraction is not None
        share = math.floor(self.rank_fraction * min(shape))
        return share // MULTIPLE * MULTIPLE if share >= MULTIPLE else max(1, share)

    def factor_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Shapes of ``left`` and ``right``, whose product has the shape of the matrix."""
        rank = self.rank_of(shape)
        return {"left": (shape[0], rank), "right": (rank, shape[1])}

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix cannot take it: the rank exceeds its full rank."""
        rank = self.rank_of(shape)
        return f"rank {rank} is above the full rank {min(shape)} of shape {shape}" if rank > min(shape) else None

    def canonical(self, shape: Shape) -> Choice:
        """The same choice with an absolute rank."""
        return self.model_copy(update={"rank": self.rank_of(shape), "rank_fraction": None})

    @property
    def uses(self) -> frozenset[Statistic]:
        """The second moment if it is needed: to whiten, or to derive the inputs of the factors for ``then``."""
        calibrated = self.algorithm == "whitened" or bool(self.then and self.then.needs)
        return frozenset({"second_moment"}) if calibrated else frozenset()

    def factors(self, weight: Tensor, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """The two factors, ``(out_features, rank)`` with orthonormal columns and ``(rank, in_features)``.

        The right factor carries all of the scale. If the rows of the left one share a scale, all its columns are
        rounded with the same error, although some matter more; each row of the right one has its own scale anyway.
        """
        basis = _basis(weight, statistics) if self.algorithm == "whitened" else _left_vectors(weight)
        left = basis[:, : self.rank_of((weight.shape[0], weight.shape[1]))]
        return left, left.T @ weight


@methods.register("lowrank")
class LowRank(Factored):
    """The best approximation of a given rank, as two factors: of the weights, or of the calibration outputs.

    ``whitened`` minimises the squared output error on the calibration texts: the sum of the squared singular values of
    ``W S`` that are left out, where ``S S'`` is the inputs' second moment. It projects the outputs onto the leading
    left singular vectors. It needs no inverse of the second moment, which may be singular.

    Source:
        Eckart & Young, 1936, "The approximation of one matrix by another of lower rank", Psychometrika 1(3). Whitened:
        Wang et al., 2024, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
        Compression", arXiv 2403.07378, without its update of the factors after truncation.
    """

    method: ClassVar[str] = "lowrank"
    without_statistics: ClassVar[Mapping[str, Any] | None] = {"algorithm": "svd"}

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Default space: half of the full rank with 4-bit factors, which lose less than a quarter with 8-bit factors.

        A quarter with 8-bit factors is offered where no group size fits.
        """
        size = next((s for s in (64, 32) if min(member.shape) // 2 >= s and member.shape[1] % s == 0), None)
        then = (
            {"method": "quantize", "bits": 4, "group_size": size, "algorithm": "gptq"}
            if size
            else {"method": "quantize", "bits": 8}
        )
        rank = min(member.shape) // 2 // size * size if size else min(member.shape) // 4 // MULTIPLE * MULTIPLE
        return (cls.build({"rank": rank, "algorithm": "whitened", "then": then}),) if kind == "linear" and rank else ()

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """The two factors, whose product is the matrix."""
        return self.factor_shapes(shape)

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The factors, each with the statistics of its own input: the right one reads x, the left one ``right @ x``."""
        left, right = self.factors(weight, statistics)
        importance = statistics.importance
        reads_x = Statistics(
            second_moment=statistics.second_moment,
            mean_absolute=statistics.mean_absolute,
            importance=None if importance is None else left.square().T @ importance,
            derived=statistics.derived,
        )
        moment = statistics.second_moment
        if moment is not None:
            moment = right @ moment @ right.T
            moment = (moment + moment.T) / 2
        spread = None
        if moment is not None and statistics.mean_absolute is not None:
            # Mean absolute value of a normal distribution: an estimate.
            spread = moment.diagonal().clamp(min=0).sqrt() * math.sqrt(2 / math.pi)
        reads_right = Statistics(
            second_moment=moment,
            mean_absolute=spread,
            importance=None if importance is None else importance @ right.square().T,
        )
        return {}, {"left": Part(matrix=left, statistics=reads_right), "right": Part(matrix=right, statistics=reads_x)}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The product of the factors."""
        return parts["left"].float() @ parts["right"].float()


def _left_vectors(matrix: Tensor) -> Tensor:
    """Left singular vectors by falling singular value; deterministic."""
    import torch

    left: Tensor = torch.linalg.svd(matrix, full_matrices=False).U
    return left


def _basis(weight: Tensor, statistics: Statistics) -> Tensor:
    """Left singular vectors of ``W S``.

    Those of the last matrix are cached with the statistics for its other ranks.
    """
    digest = hashlib.sha256(weight.numpy().tobytes()).digest()
    kept = statistics.derived.get("lowrank basis")
    if kept is None or kept[0] != digest:
        kept = statistics.derived["lowrank basis"] = (digest, _left_vectors(weight @ _root(statistics)))
    basis: Tensor = kept[1]
    return basis


def _root(statistics: Statistics) -> Tensor:
    """A matrix S where ``S S'`` is the damped second moment of the inputs.

    Cached with the statistics, since it depends on them alone.
    """
    import torch

    if "lowrank root" not in statistics.derived:
        moment = statistics["second_moment"].double()
        values, vectors = torch.linalg.eigh(moment)
        floor = DAMPING * float(values.clamp(min=0).mean()) or 1.0
        statistics.derived["lowrank root"] = (vectors * (values.clamp(min=0) + floor).sqrt()).float()
    root: Tensor = statistics.derived["lowrank root"]
    return root
