"""The Hessian of a layer's squared error in its outputs: how it is damped, and the factor of its inverse.

Importing this imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paredown.space.errors import EvaluationError

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Added to the diagonal of the second moment, as a share of its mean."""

BLOCK = 128
"""Columns after which their errors are passed on to all columns to come."""


def hessian(moment: Tensor, damping: float = DAMPING) -> Tensor:
    """A second moment as a share of its mean diagonal, damped; the identity where all inputs are zero.

    Raises:
        EvaluationError: If the matrix is not finite, or its mean diagonal is negative: it is no second moment.
    """
    import torch

    mean = moment.diagonal().mean()
    if not (moment.isfinite().all() and mean >= 0):
        raise no_moment()
    return moment / mean + damping * torch.eye(len(moment)) if mean > 0 else torch.eye(len(moment))


def factor_of_inverse(hessian: Tensor) -> Tensor:
    """The upper triangular ``U`` with ``U' U`` the inverse of a positive definite matrix; in the matrix's type.

    Raises:
        EvaluationError: If the matrix is not positive definite.
    """
    import torch

    # Reversed, H = R R' with R upper triangular, so that U = R^-1 and H itself is never inverted.
    upper, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if failed:
        raise no_moment()
    factor: Tensor = torch.linalg.solve_triangular(
        upper.flip(0, 1), torch.eye(len(hessian), dtype=hessian.dtype), upper=True
    )
    return factor


def no_moment() -> EvaluationError:
    """What is said of a matrix that cannot be the second moment of any inputs."""
    return EvaluationError(
        "the second moment of a matrix's inputs must be finite and positive semidefinite, and this one is not: its statistics are damaged; "
        "remove the folder statistics of the bank, then run the same command again"
    )
