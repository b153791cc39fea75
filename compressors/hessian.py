"""The Hessian of a layer's squared error in its outputs: how it is damped, and the factor of its inverse.

Importing this imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Added to the diagonal of the second moment, as a share of its mean."""

BLOCK = 128
"""Columns after which their errors are passed on to all columns to come."""


def hessian(moment: Tensor, damping: float = DAMPING) -> Tensor:
    """A second moment as a share of its mean diagonal, damped; the identity where all inputs are zero."""
    import torch

    mean = moment.diagonal().mean()
    return moment / mean + damping * torch.eye(len(moment)) if mean > 0 else torch.eye(len(moment))


def factor_of_inverse(hessian: Tensor) -> Tensor:
    """The upper triangular ``U`` with ``U' U`` the inverse of a positive definite matrix; in the matrix's type.

    Raises:
        torch.linalg.LinAlgError: If the matrix is not positive definite.
    """
    import torch

    # Reversed, H = R R' with R upper triangular, so that U = R^-1 and H itself is never inverted.
    upper = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    factor: Tensor = torch.linalg.solve_triangular(upper, torch.eye(len(hessian), dtype=hessian.dtype), upper=True)
    return factor
