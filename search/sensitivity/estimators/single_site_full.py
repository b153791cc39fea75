"""Estimator ``single-site-full``: every choice is measured."""

from __future__ import annotations

from paredown.search.sensitivity.estimators import Estimator, estimators, kept, pairs_of
from paredown.search.sensitivity.measurements import Evidence, Sensitivity


def single_site_full(evidence: Evidence) -> Sensitivity:
    """Measured loss of every choice, each alone."""
    return kept(evidence.space) | evidence.losses_alone(pairs_of(evidence.space))


estimators.register("single-site-full")(Estimator(losses=single_site_full, alone=pairs_of))
