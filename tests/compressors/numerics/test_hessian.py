"""The damped Hessian, and the factor of its inverse that GPTQ and SparseGPT share."""

from __future__ import annotations

import pytest
import torch

from paredown.compressors.numerics.hessian import DAMPING, hessian, inverse_factor
from paredown.compressors.pruning.pattern import Pattern, criteria
from paredown.compressors.rounding.grid import Grid, roundings
from paredown.space.statistics import Statistics
from shared.correlated import statistics_of


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    """Upper triangular, with the least damping, whatever the scale of the inputs."""
    moment = statistics_of((1, 40))["second_moment"]
    factor = inverse_factor(moment)
    damped = hessian(moment).double()
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.double().T @ factor.double(), torch.linalg.inv(damped), rtol=1e-3, atol=1e-3)
    assert float(damped.diagonal().mean()) == pytest.approx(1 + DAMPING)
    torch.testing.assert_close(inverse_factor(1024 * moment), factor)


@pytest.mark.parametrize("algorithm", ["gptq", "sparsegpt"])
def test_a_moment_that_is_indefinite_by_rounding_takes_more_damping(algorithm: str) -> None:
    """For rounding and for pruning alike; the result is finite."""
    statistics = Statistics(second_moment=torch.ones(32, 32) - 0.3 * torch.eye(32))
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    if algorithm == "gptq":
        found = roundings[algorithm].round(weight, Grid(bits=4, group=32), statistics).codes
    else:
        found = criteria[algorithm].prune(weight, Pattern(kept=16, group=32), statistics).weight
    assert found.isfinite().all()
