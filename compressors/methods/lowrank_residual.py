"""Low-rank factors plus a compressed residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from paredown.compressors.methods.cast import Cast
from paredown.compressors.methods.lowrank import Factored
from paredown.compressors.methods.quantize import Quantize
from paredown.space.choice import KEEP, Choice, MatrixChoice, Part, Shape, methods
from paredown.space.statistics import NO_STATISTICS, Statistics
from paredown.space.tensors import Layout

if TYPE_CHECKING:
    from torch import Tensor

FACTORS: Mapping[int, MatrixChoice] = {16: Cast(), 8: Quantize(bits=8)}
"""Choice that stores the factors, by bits."""


@methods.register("lowrank-residual")
class LowRankResidual(Factored):
    """Two low-rank factors, and the residual compressed by ``then``.

    The factors are fitted to the error of ``then``, which in turn compresses what the factors leave; the round of least
    loss is taken. The loss is the error of the weights (``svd``) or of the outputs on the calibration texts
    (``whitened``). With ``rounds=0`` the factors are fitted once, to the matrix itself. The residual is computed from
    the factors as they are stored, so ``then`` also corrects their rounding.

    Source:
        Zhang et al., 2024, "LQER: Low-Rank Quantization Error Reconstruction for LLMs", arXiv 2402.02446, fits factors
        to the scaled rounding error. Li et al., 2023, "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language
        Models", arXiv 2310.08659, alternates. Without rounds: Li et al., 2024, "SVDQuant: Absorbing Outliers by
        Low-Rank Components for 4-Bit Diffusion Models", arXiv 2411.05007.
    """

    method: ClassVar[str] = "lowrank-residual"

    factor_bits: int = Field(
        default=8, description="bits of the stored factors: 16 or 8", json_schema_extra={"enum": list(FACTORS)}
    )
    rounds: int = Field(
        default=4,
        ge=0,
        le=32,
        description="fits of the factors to the rounding error; 0: one fit, to the matrix itself",
    )

    @field_validator("factor_bits")
    @classmethod
    def _stored(cls, value: int) -> int:
        if value not in FACTORS:
            raise ValueError(f"expected 16 or 8, got {value}")
        return value

    @classmethod
    def examples(cls) -> Sequence[Choice]:
        """Documentation example, since no default space offers the method: 3 bits and a small rank."""
        return (cls.build({"rank": 32, "then": {"method": "quantize", "bits": 3, "group_size": 64}}),)

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix cannot take it: nothing compresses the residual, or the rank is too high."""
        if self.then is None:
            return (
                "lowrank-residual stores the whole residual; add 'then quantize bits=3', "
                "or use 'lowrank' for the factors alone"
            )
        return super().fault(shape)

    def own(self, shape: Shape, dtype: str) -> Layout:
        """The stored factors."""
        step = FACTORS[self.factor_bits]
        return {
            f"{name}.{key}": spec
            for name, part in self.factor_shapes(shape).items()
            for key, spec in step.own(part, dtype).items()
        }

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """The residual."""
        return {"residual": shape}

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The stored factors, and the residual with the statistics of the matrix."""
        best, least = (
            self._fitted(weight if self.rounds == 0 else weight - self._kept(weight, statistics), weight, statistics),
            None,
        )
        own, residual = best
        for turn in range(self.rounds):
            kept = self._kept(residual, statistics)
            lost = self._lost(residual - kept, statistics)
            if least is None or lost < least:
                best, least = (own, residual), lost
            if turn + 1 < self.rounds:
                own, residual = self._fitted(weight - kept, weight, statistics)
        own, residual = best
        return own, {"residual": Part(matrix=residual, statistics=statistics)}

    def _fitted(self, target: Tensor, weight: Tensor, statistics: Statistics) -> tuple[dict[str, Tensor], Tensor]:
        """Stored factors fitted to ``target``, and the residual that they leave of ``weight``."""
        own: dict[str, Tensor] = {}
        for name, factor in zip(("left", "right"), self.factors(target, statistics), strict=True):
            stored = FACTORS[self.factor_bits].encode(factor.contiguous())[0]
            own |= {f"{name}.{key}": tensor for key, tensor in stored.items()}
        return own, weight - self.product(own, (weight.shape[0], weight.shape[1]))

    def _kept(self, matrix: Tensor, statistics: Statistics) -> Tensor:
        """The matrix after encoding and decoding by ``then``."""
        from paredown.compressors.bank.encoding import decode_matrix, encode_matrix

        then = self.then or KEEP
        return decode_matrix(
            then, encode_matrix(then, matrix, "float32", statistics), (matrix.shape[0], matrix.shape[1])
        )

    def _lost(self, difference: Tensor, statistics: Statistics) -> float:
        """Squared error of the weights (``svd``) or of the outputs (``whitened``)."""
        changed = difference @ statistics["second_moment"] if self.algorithm == "whitened" else difference
        return float((changed.double() * difference).sum())

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The product of the factors plus the residual."""
        return parts["residual"].float() + self.product(own, shape)

    def product(self, own: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The product of the stored factors."""
        left, right = (
            FACTORS[self.factor_bits].decode(self.factor(own, name), {}, part)
            for name, part in self.factor_shapes(shape).items()
        )
        return left @ right

    def factor(self, own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
        """The tensors of one stored factor."""
        return {key.removeprefix(f"{name}."): tensor for key, tensor in own.items() if key.startswith(f"{name}.")}
