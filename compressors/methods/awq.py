"""Activation-aware scaling: channels with large inputs get larger weights, so rounding loses less of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from paredown.compressors.numerics.group_removal import rounded
from paredown.space.choice import KEEP, Choice, methods
from paredown.space.site import Kind, Site
from paredown.space.statistics import Statistic, Statistics
from paredown.space.structure_choice import Structure, StructureChoice
from paredown.space.targets.target import Storage
from paredown.space.tensors import ITEM_BYTES

if TYPE_CHECKING:
    from torch import Tensor

EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Exponents tried when ``alpha`` is not given."""

SMALLEST = 1e-4
"""Lower bound on a channel scale before normalisation."""


@methods.register("awq")
class Awq(StructureChoice):
    """Scales input channels by a power of their mean magnitude and inverts it upstream; the output is unchanged.

    The scales of matrices that read a norm are folded into the norm. Those of the last matrix are folded into the rows
    of the one before it, where everything in between commutes with a scale. ``then`` thus rounds a matrix whose
    important columns are larger. The exponent is the one of ten candidates whose rounding adds the least output error,
    by the second moment of the inputs. A calibrated algorithm in ``then`` is replaced by its data-free default for
    these tries.

    Source:
        Lin et al., 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv
        2306.00978, section 3.2; the normalisation of the scales as in its authors' code.
    """

    method: ClassVar[str] = "awq"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"ffn", "attention"})

    alpha: float | None = Field(
        default=None, ge=0, le=1, description="exponent of the channel scales; none: the best of ten candidates"
    )

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Default space: 3-bit feed-forward networks.

        Attention is left out: GPTQ alone recovers most of its loss.
        """
        if not site.norm or site.kind != "ffn":
            return ()
        return (cls.build({"then": rounded([member.shape for member in site.members], 3)}),)

    @property
    def storage(self) -> Storage:
        """Plain matrices: only their values and those of a norm change."""
        return Storage(method=self.method, form="dense")

    def site_fault(self, site: Site) -> str | None:
        """Why a site cannot take it: it has no norm to fold the scales into."""
        if site.norm:
            return None
        return (
            "no norm is known that only its matrices read, so its inputs cannot be scaled; "
            "use quantize for each matrix instead"
        )

    @property
    def uses(self) -> frozenset[Statistic]:
        """Mean magnitudes of the inputs; also their second moment if exponents are tried."""
        return frozenset({"mean_absolute"} if self.alpha is not None else {"mean_absolute", "second_moment"})

    def restructure(self, site: Site, original: Structure) -> Structure:
        """The same function with scaled columns: from norm to readers, then from the last maker to the reader."""
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
        """Scales of the channels that the matrices read.

        Args:
            matrices: Readers of the channels, float32.
            statistics: Statistics of each reader.
            magnitude: Mean magnitude of each channel.
            shared: Groups of neighbouring channels, and the columns that share each channel of a group.
        """
        if self.alpha is not None:
            return power(magnitude, self.alpha)
        candidates = [power(magnitude, alpha) for alpha in EXPONENTS]
        return min(candidates, key=lambda scale: self.error(matrices, statistics, spread(scale, shared)))

    def error(self, matrices: Sequence[Tensor], statistics: Sequence[Statistics], scale: Tensor) -> float:
        """Output error that rounding adds to matrices with scaled columns: trace(dW H dW')."""
        import torch

        from paredown.compressors.bank.encoding import decode_matrix, encode_matrix

        step, total = data_free(self.then or KEEP), 0.0
        for matrix, found in zip(matrices, statistics, strict=True):
            scaled = found.scaled(torch.ones(len(matrix)), scale).only(step.needs)
            stored = encode_matrix(step, matrix * scale, "float32", scaled)
            change = decode_matrix(step, stored, (matrix.shape[0], matrix.shape[1])) / scale - matrix
            total += float(((change @ found["second_moment"]) * change).sum())
        return total


def data_free(choice: Choice) -> Choice:
    """The choice with its default algorithm, if the one that it names is calibrated."""
    field = type(choice).model_fields.get("algorithm")
    return choice.model_copy(update={"algorithm": field.default}) if choice.needs and field else choice


def power(magnitude: Tensor, alpha: float) -> Tensor:
    """Mean magnitudes to a power, divided by the geometric mean of the largest and the smallest."""
    scale = magnitude.pow(alpha).clamp(min=SMALLEST)
    middle: Tensor = (scale.max() * scale.min()).sqrt()
    return scale / middle


def binary(scale: Tensor) -> Tensor:
    """The nearest powers of two: scaling by them is exact in floating point."""
    return scale.log2().round().exp2()


def folded(site: Site, norm: Mapping[str, Tensor], scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Column scales of what reads a norm, and the norm divided by them, rounded to its stored dtype.

    The returned scale is the ratio of the norm's weight before and after rounding, so only float32 rounding is lost. A
    norm with a bias in a dtype narrower than float32 takes powers of two only. Channels that the dtype cannot represent
    are left unscaled.
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
    """How the reader's columns share the channels of the maker before it; None if those must not be scaled.

    Returns:
        Groups of neighbouring channels, and the columns that share each channel of a group.
    """
    rows, columns = site.members[-2].shape[0], site.members[-1].shape[1]
    if not site.homogeneous:
        return None
    if rows == columns:
        return 1, 1
    return (site.heads[1], site.heads[0] // site.heads[1]) if site.heads else None


def spread(scale: Tensor, shared: tuple[int, int]) -> Tensor:
    """Column scales from channel scales: each query head of a group reads the same value head."""
    groups, columns = shared
    return scale.view(groups, 1, -1).expand(-1, columns, -1).reshape(-1)
