"""The damped Hessian of a layer's squared output error, and the Cholesky factor of its inverse.

Importing this imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.space.errors import EvaluationError

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Damping added to the diagonal of the second moment, as a share of the diagonal's mean."""

MOST_DAMPING = 100.0
"""Upper bound on the damping, as a share of the mean diagonal; a valid second moment needs far less."""

BLOCK = 128
"""Columns that are processed before their errors are propagated to all later columns [columns]."""


def hessian(moment: Tensor, damping: float = DAMPING) -> Tensor:
    """A second moment divided by its mean diagonal, then damped; the identity if all inputs are zero.

    Raises:
        EvaluationError: If the matrix is not finite or its mean diagonal is negative: it is not a second moment.
    """
    import torch

    mean = moment.diagonal().mean()
    if not (moment.isfinite().all() and mean >= 0):
        raise no_moment()
    return moment / mean + damping * torch.eye(len(moment)) if mean > 0 else torch.eye(len(moment))


def inverse_factor(moment: Tensor) -> Tensor:
    """Upper triangular ``U`` such that ``U' U`` is the inverse of the `hessian` of a second moment; float32.

    The damping is the least multiple of `DAMPING` by a power of ten that makes the Hessian positive definite.

    Raises:
        EvaluationError: If even `MOST_DAMPING` does not: the matrix is not a second moment.
    """
    damping = DAMPING
    while True:
        try:
            return cholesky_of_inverse(hessian(moment, damping))
        except EvaluationError:
            damping *= 10
            if damping > MOST_DAMPING:
                raise


def cholesky_of_inverse(hessian: Tensor) -> Tensor:
    """Upper triangular ``U`` such that ``U' U`` is the inverse of a positive definite matrix; same dtype as the matrix.

    Raises:
        EvaluationError: If the matrix is not positive definite.
    """
    import torch

    # Reversing rows and columns gives H = R R' with R upper triangular. So U = R^-1, and H is never inverted.
    upper, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if failed:
        raise no_moment()
    factor: Tensor = torch.linalg.solve_triangular(
        upper.flip(0, 1), torch.eye(len(hessian), dtype=hessian.dtype), upper=True
    )
    return factor


def no_moment() -> EvaluationError:
    """The error for a matrix that cannot be the second moment of any inputs."""
    return EvaluationError(
        "the second moment of a matrix's inputs must be finite and positive semidefinite, and this one is not: "
        "the statistics are damaged; remove the bank's folder 'statistics', then run the same command again"
    )
