"""Digests of the bank's records that a trial was scored with, for its plan file."""

from __future__ import annotations

from paredown.compressors.model.sequential import ordered_bank
from paredown.search.outcome.outcome import Outcome
from paredown.search.trial import Trial
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import KEEP
from paredown.space.plan_file import Records


def scored_records(bench: Workbench, outcome: Outcome, trial: Trial) -> Records:
    """Digests of the records that scored a trial's plan (in order, if that won); what the bank lacks is left out."""
    bank = ordered_bank(bench.bank, trial.plan) if outcome.decision.in_order(trial) else bench.bank
    decided = [
        (site, choice)
        for site, choice in trial.plan.decided(bench.space.inventory)
        if choice != KEEP and site.kind != "block"
    ]
    found = {site.name: bank.sha256(site, choice) for site, choice in decided}
    return bench.banks.origin.records({name: digest for name, digest in found.items() if digest})
