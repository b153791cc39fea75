"""Activation-aware scaling: channels of large inputs get larger weights, which lose less by rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.compressors.narrowing import rounded
from paredown.space.choice import KEEP, Choice, Structure, methods
from paredown.space.site import Kind, Site
from paredown.space.statistics import Statistic, Statistics
from paredown.space.target import Target
from paredown.space.tensors import ITEM_BYTES

if TYPE_CHECKING:
    from torch import Tensor

EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST = 1e-4


@methods.register("awq")
class Awq(Choice):
    """Input channels are scaled by a power of their mean magnitude, and what makes them by the inverse: the output stays the same.

    The scales of what reads a norm are folded into the norm, those of the last matrix into the rows of the one before it where
    what lies between keeps a scale. What follows then rounds a matrix whose important columns are larger. The exponent is the
    one of a few whose rounding adds least to the output, by the second moment of the inputs; a calibrated algorithm of what
    follows is tried as round-to-nearest.

    Source:
        Lin et al., 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv 2306.00978,
        section 3.2; the normalisation of the scales as in its authors' code.
    """

    method: ClassVar[str] = "awq"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"ffn", "attention"})

    alpha: float | None = Field(default=None, ge=0, le=1, description="exponent of the scales; none: the best of ten")

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """3 bits of feed-forward networks: GPTQ alone makes up for most of what attentions lose."""
        if not site.norm or site.kind != "ffn":
            return ()
        return (cls.build({"then": rounded([member.shape for member in site.members], 3)}),)

    def supports(self, site: Site, target: Target) -> str | None:
        """A norm with other numbers is a norm everywhere."""
        return None

    def site_fault(self, site: Site) -> str | None:
        """No norm to fold the scales into."""
        if site.norm:
            return None
        return "no norm is known that only its matrices read, so its inputs cannot be scaled; take quantize for each matrix"

    @property
    def uses(self) -> frozenset[Statistic]:
        """Magnitudes of the inputs, and what a change of a column does to the output where exponents are tried."""
        return frozenset({"mean_absolute"} if self.alpha is not None else {"mean_absolute", "second_moment"})

    def restructure(self, site: Site, original: Structure) -> Structure:
        """The same function with scaled columns: from the norm to its readers, then from the last maker to the reader."""
        import torch

        *makers, reader = original.matrices
        *known, read = original.statistics
        scale, norm = folded(site, original.rest, self.scale(makers, known, known[0]["mean_absolute"]))
        outputs = [torch.ones(len(matrix)) for matrix in original.matrices]
        inputs = [scale] * len(makers) + [torch.ones(reader.shape[1])]
        if shared := sharing(site):
            mean = read["mean_absolute"].view(*shared, -1).mean(1).flatten()
            scale = self.scale([reader], [read], mean, shared)
            bias = site.members[-2].bias
            scale = binary(scale) if bias and ITEM_BYTES[bias.dtype] < 4 else scale
            outputs[-2], inputs[-1] = 1 / scale, spread(scale, shared)
        return Structure(
            matrices=[
                row[:, None] * matrix * column
                for row, matrix, column in zip(outputs, original.matrices, inputs, strict=True)
            ],
            biases=[bias if bias is None else bias * row for bias, row in zip(original.biases, outputs, strict=True)],
            statistics=[
                found.scaled(row, column)
                for found, row, column in zip(original.statistics, outputs, inputs, strict=True)
            ],
            rest=norm,
        )

    def scale(
        self,
        matrices: Sequence[Tensor],
        statistics: Sequence[Statistics],
        magnitude: Tensor,
        shared: tuple[int, int] = (1, 1),
    ) -> Tensor:
        """Scales of the channels that matrices read, each used by as many columns as share it."""
        if self.alpha is not None:
            return power(magnitude, self.alpha)
        candidates = [power(magnitude, alpha) for alpha in EXPONENTS]
        return min(candidates, key=lambda scale: self.error(matrices, statistics, spread(scale, shared)))

    def error(self, matrices: Sequence[Tensor], statistics: Sequence[Statistics], scale: Tensor) -> float:
        """What rounding matrices with scaled columns adds to their outputs: trace(dW H dW')."""
        import torch

        from paredown.compressors.storage import decode_matrix, encode_matrix

        step, total = data_free(self.then or KEEP), 0.0
        for matrix, found in zip(matrices, statistics, strict=True):
            scaled = found.scaled(torch.ones(len(matrix)), scale).only(step.needs)
            stored = encode_matrix(step, matrix * scale, "float32", scaled)
            change = decode_matrix(step, stored, (matrix.shape[0], matrix.shape[1])) / scale - matrix
            total += float(((change @ found["second_moment"]) * change).sum())
        return total


def data_free(choice: Choice) -> Choice:
    """The choice with the algorithm that it has by default, where the one that it names is calibrated."""
    field = type(choice).model_fields.get("algorithm")
    return choice.model_copy(update={"algorithm": field.default}) if choice.needs and field else choice


def power(magnitude: Tensor, alpha: float) -> Tensor:
    """Mean magnitudes to a power, with 1 in the middle of their range."""
    scale = magnitude.pow(alpha).clamp(min=SMALLEST)
    middle: Tensor = (scale.max() * scale.min()).sqrt()
    return scale / middle


def binary(scale: Tensor) -> Tensor:
    """The nearest powers of two, which no floating-point number loses a digit by."""
    return scale.log2().round().exp2()


def folded(site: Site, norm: Mapping[str, Tensor], scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The scale of what reads a norm, and the norm whose output is smaller by it, in the numbers that its own type holds.

    The scale is the quotient of the norm's weights before and after, so that no more is lost than float32 loses. A bias in a
    narrower type takes powers of two only. Channels that the type cannot hold stay as they are.
    """
    import torch

    dtypes = {name: getattr(torch, spec.dtype) for name, spec in site.norm.items()}
    narrow = any(ITEM_BYTES[spec.dtype] < 4 for spec in site.norm.values())
    if len(norm) > 1 and narrow:
        scale = binary(scale)
    new = {name: (old / scale).to(dtypes[name]).float() for name, old in norm.items()}
    weight = next(name for name in norm if name.endswith(".weight"))
    fits = (new[weight] != 0) & new[weight].isfinite()
    for name, old in norm.items():
        if name != weight and narrow:
            fits &= new[name] * scale == old
    effective = torch.where(fits, norm[weight] / new[weight], 1.0)
    return effective, {name: torch.where(fits, new[name], old) for name, old in norm.items()}


def sharing(site: Site) -> tuple[int, int] | None:
    """How the columns of the reader share the channels of the maker before it; None where those may not be scaled.

    Groups of neighbouring channels, and how many columns share each channel of a group.
    """
    rows, columns = site.members[-2].shape[0], site.members[-1].shape[1]
    if not site.homogeneous:
        return None
    if rows == columns:
        return 1, 1
    return (site.heads[1], site.heads[0] // site.heads[1]) if site.heads else None


def spread(scale: Tensor, shared: tuple[int, int]) -> Tensor:
    """Scales of columns from those of the channels that they share: a head of values is read by each query head of its group."""
    groups, columns = shared
    return scale.view(groups, 1, -1).expand(-1, columns, -1).reshape(-1)
