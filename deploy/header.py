"""Headers of safetensors files: the tensors stored, and the bytes that are not tensor data."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from paredown.compressors.original.checkpoint import header_of
from paredown.space.errors import VerificationError
from paredown.space.tensors import TensorSpec, total_bytes


def read_header(folder: Path) -> tuple[dict[str, TensorSpec], int]:
    """Specs of all tensors in a folder by name, and the bytes of its safetensors files that are not tensor data.

    Raises:
        VerificationError: If there is no safetensors file, or one is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise VerificationError(f"{folder} holds no safetensors file; apply the plan again")
    found: dict[str, TensorSpec] = {}
    for path in paths:
        try:
            found |= header_of(path)
        except (SafetensorError, OSError) as error:
            raise VerificationError(f"{path} is damaged ({error}); apply the plan again") from None
    return found, sum(path.stat().st_size for path in paths) - total_bytes(found)
