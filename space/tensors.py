"""Names, dtypes and shapes of stored tensors, from which bytes are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ITEM_BYTES = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes per element, by torch dtype."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One stored tensor: the name of its torch dtype, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the data, headers excluded."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


Layout = Mapping[str, TensorSpec]
"""Tensors by name."""


def total_bytes(layout: Layout) -> int:
    """Bytes of the data of all tensors in a layout."""
    return sum(spec.size_bytes for spec in layout.values())
