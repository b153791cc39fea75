"""Vector codebooks: found by k-means, then refitted to the codes; importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 2048
"""Approximate number of vectors that the first centroids are drawn from."""

ROUNDS = 10
"""Maximum number of k-means iterations."""

CHUNK = 1024
"""Number of vectors whose distances are computed at a time, so that they stay in the CPU cache."""

STEPS = 3
"""Number of conjugate-gradient steps when a codebook is fitted to its codes."""

ROWS = 512
"""Upper bound on the rows of a matrix, evenly spaced, that its codebook is fitted to."""


def k_means(vectors: Tensor, costs: Tensor, clusters: int) -> Tensor:
    """Centroids of low weighted squared error, shape ``(clusters, dimensions)``; the same on every run.

    Args:
        vectors: Shape ``(n, dimensions)``.
        costs: Weight of each squared difference, at least 0; same shape as ``vectors``.
        clusters: Number of centroids.

    Source:
        Lloyd's iterations, seeded as in Arthur & Vassilvitskii, 2007, "k-means++: The Advantages of Careful Seeding".
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    step = max(1, len(vectors) // SEEDS)
    seeds, seed_costs = vectors[::step], costs[::step]
    centroids = seeds[:1]
    nearest = torch.full((len(seeds),), torch.inf)
    for _ in range(clusters - 1):
        nearest = torch.minimum(nearest, (seed_costs * (seeds - centroids[-1]).square()).sum(1))
        drawn = (
            torch.multinomial(nearest, 1, generator=generator)
            if float(nearest.sum()) > 0
            else torch.zeros(1, dtype=torch.int64)
        )
        centroids = torch.cat([centroids, seeds[drawn]])
    weighted = costs * vectors
    features = torch.cat([costs, -2 * weighted], 1)
    for _ in range(ROUNDS):
        table = torch.cat([centroids.square(), centroids], 1).T
        index = torch.cat([least(part @ table) for part in features.split(CHUNK)])  # chunks stay in the cache
        mass = torch.zeros_like(centroids).index_add_(0, index, costs)
        total = torch.zeros_like(centroids).index_add_(0, index, weighted)
        moved = torch.where(mass > 0, total / mass.clamp(min=1e-30), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids


def least(costs: Tensor) -> Tensor:
    """Index of the smallest value in each row; the first one if several are equal.

    NumPy takes a tenth of torch's time for this on a CPU.
    """
    import torch

    return torch.from_numpy(costs.numpy().argmin(1))


def fitted_codebook(weight: Tensor, indices: Tensor, codebook: Tensor, scale: Tensor, curvature: Tensor) -> Tensor:
    """The codebook after `STEPS` steps that reduce the output error of the matrix with its codes fixed.

    At most `ROWS` rows are fitted, and the values are rounded to bfloat16.

    Args:
        weight: Shape ``(rows, columns)``; not modified.
        indices: Index of the vector of each run of a row, shape ``(rows, runs)``.
        codebook: Shape ``(centroids, dimensions)``; returned as it is if the output error would not fall.
        scale: Scale of each row, shape ``(rows, 1)``.
        curvature: H of the output error ``trace(E H E')``, shape ``(columns, columns)``.

    Source:
        van Baalen et al., 2024, "GPTVQ: The Blessing of Dimensionality for LLM Quantization", arXiv 2402.15319, on the
        update of the codebook. That paper uses gradient descent; here it is conjugate gradients (Hestenes & Stiefel,
        1952, "Methods of Conjugate Gradients for Solving Linear Systems"), preconditioned with the diagonal that the
        normal equations have without correlations.
    """
    import torch

    step = -(-len(weight) // ROWS)
    weight, scale, flat, dimensions = weight[::step], scale[::step], indices[::step].flatten(), codebook.shape[1]

    def matrix(vectors: Tensor) -> Tensor:
        return vectors.index_select(0, flat).view(weight.shape) * scale

    def gathered(by_weight: Tensor) -> Tensor:
        return torch.zeros_like(codebook).index_add_(0, flat, (by_weight * scale).view(-1, dimensions))

    def loss(vectors: Tensor) -> float:
        error = weight - matrix(vectors)
        return float(((error @ curvature) * error).sum())

    diagonal = gathered(scale * curvature.diagonal()).clamp(min=1e-30)
    fitted, residual = codebook, gathered((weight - matrix(codebook)) @ curvature)
    direction = residual / diagonal
    power = (residual * direction).sum()
    for _ in range(STEPS):
        curved = gathered(matrix(direction) @ curvature)
        length = power / (direction * curved).sum().clamp(min=1e-30)
        fitted, residual = fitted + length * direction, residual - length * curved
        before, power = power, (residual.square() / diagonal).sum()
        direction = residual / diagonal + power / before.clamp(min=1e-30) * direction
    fitted = fitted.to(torch.bfloat16).float()
    return fitted if loss(fitted) < loss(codebook) else codebook
