"""Statistics of made-up inputs that are correlated, and of unequal size, as those of trained models are."""

from __future__ import annotations

import torch

from paredown.space.statistics import Statistics


def inputs_of(columns: int, seed: int = 0, tokens: int = 512) -> torch.Tensor:
    """Inputs of a matrix, shape ``(tokens, columns)``: a few directions shared by all, and noise of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(tokens, max(1, columns // 4), generator=generator) @ torch.randn(
        max(1, columns // 4), columns, generator=generator
    )
    noise = torch.randn(tokens, columns, generator=generator)
    return (shared + noise) * torch.randn(columns, generator=generator).exp()


def statistics_of(shape: tuple[int, int], seed: int = 0) -> Statistics:
    """All statistics of a matrix of this shape."""
    inputs = inputs_of(shape[1], seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return Statistics(
        second_moment=inputs.T @ inputs / len(inputs),
        mean_absolute=inputs.abs().mean(0),
        importance=torch.randn(shape, generator=generator).square() * inputs.square().mean(0),
    )
