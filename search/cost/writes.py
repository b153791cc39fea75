"""Bytes that a search will write, counted from the space before anything is compressed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from paredown.compressors.tensor_files.mapped_safetensors import file_bytes
from paredown.compressors.tensor_files.record_names import ABOUT, about_of
from paredown.compressors.tensor_files.tensor_file import DIGEST
from paredown.search.finalists.checks import DRAWS
from paredown.search.finalists.finalists import SEARCHED, UNIFORM
from paredown.search.sensitivity.lazy_choices import data_free, is_lazy, narrowed
from paredown.search.solver.solver import Solver
from paredown.search.trials.uniform import UniformPlan, uniform_plans
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import site_bytes, site_layout
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Member, Site
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.tensors import TensorSpec

COMPARED = 2
"""Plans compared on the held-out set; the solver's plan is nearly always the search's best, so it adds no third."""

FACT_BYTES, FINGERPRINT_BYTES = 190, 130
"""A loss in the bank's facts file with its keys, and the fingerprint of a tensor [bytes]."""

TRIAL_BYTES, CHOICE_BYTES = 2500, 75
"""A trial in the database without its choices, and a site with its choice in JSON or YAML [bytes]."""

JOURNAL_BYTES, JOURNAL_CHOICE_BYTES = 4 << 20, 1500
"""The database's journal at most, and its growth per site of a trial [bytes]."""

REPORT_BYTES = 600_000
"""Reports, their pictures and an empty database [bytes]."""

ANY_SHA256 = "0" * 64
_SAID = {ABOUT: json.dumps({DIGEST: ANY_SHA256})}

Pairs = dict[tuple[str, Choice], Site]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """Bytes of the files that a search writes.

    Attributes:
        records: Compressed sites on the study's own texts; exact except for norms that a choice changes, approximate if
            the bank is filled lazily.
        statistics: Statistics for calibrated choices, of all calibration draws; exact.
        rebuilt: The finalists' calibrated sites, compressed again in order and on other draws.
        facts: Losses and fingerprints beside the statistics, approximate.
        inputs: The original's inputs on one draw, on disk only while plans are compressed in order; exact.
        books: Database with its journal, plans and reports, approximate.
    """

    records: int
    statistics: int
    rebuilt: int
    facts: int
    inputs: int
    books: int

    @property
    def bank(self) -> int:
        """Size of the bank at the end."""
        return self.records + self.statistics + self.rebuilt + self.facts

    @property
    def peak(self) -> int:
        """Peak disk usage."""
        return self.bank + self.inputs + self.books


def writes_of(study_file: StudyFile, space: Space) -> Writes:
    """Bytes that a search of a study writes."""
    inventory, budget = space.inventory, space.inventory.budget_bytes(study_file.budget)
    uniform = uniform_plans(space, budget)
    pairs = pairs_of(_filled(study_file, space, budget), uniform)
    expected = expected_plan(space, budget)
    rebuilt = sum(_file_bytes(site, choice) for site, choice in expected.decided(inventory) if choice.needs)
    draws = DRAWS if rebuilt else 1
    widths = input_widths(inventory)
    has_importance = any("importance" in choice.needs for options in space.options.values() for choice in options)
    return Writes(
        records=record_bytes(pairs),
        statistics=draws * (_moment_bytes(inventory, widths) + (_importance_bytes(inventory) if has_importance else 0)),
        rebuilt=(finalists_of(study_file, uniform, budget) + (draws - 1) * COMPARED) * rebuilt,
        facts=FACT_BYTES * len(pairs_of(space)) + FINGERPRINT_BYTES * len(inventory.original_layout()),
        inputs=sum(2 * study_file.tokens.calibration * width + 80 for width in widths.values()) if rebuilt else 0,
        books=_book_bytes(study_file, space, pairs),
    )


def finalists_of(study_file: StudyFile, uniform: Sequence[UniformPlan], budget_bytes: int) -> int:
    """Number of plans measured on the selection set; a search with few trials has fewer."""
    fitting = sum(each.size_bytes <= budget_bytes for each in uniform)
    found = SEARCHED if study_file.trials is None else min(SEARCHED, max(1, study_file.trials - len(uniform)))
    return found + min(UNIFORM, fitting)


def expected_plan(space: Space, budget_bytes: int) -> Plan:
    """A plan of the budget if bits matter equally everywhere; it has about as many calibrated choices as a finalist."""
    leaves = replace(
        space, options={site.name: space.options[site.name] if site.is_leaf else () for site in space.inventory.sites}
    )
    solver = Solver(leaves)
    return solver.solve(_guessed(leaves), max(budget_bytes, solver.smallest().size_bytes(space.inventory)))


def pairs_of(space: Space, uniform: Iterable[UniformPlan] = ()) -> Pairs:
    """Every (site, choice) that has a record: the options of the space and the choices of the uniform plans."""
    inventory = space.inventory
    pairs = {(site.name, choice): site for site in inventory.sites for choice in space.options[site.name]}
    for each in uniform:
        pairs |= {(site.name, choice): site for site, choice in each.plan.decided(inventory)}
    return {pair: site for pair, site in pairs.items() if pair[1] != KEEP and site.kind != "block"}


def record_bytes(pairs: Pairs) -> int:
    """Total size of the records' files."""
    return sum(_file_bytes(site, choice) for (_, choice), site in pairs.items())


def input_widths(inventory: Inventory) -> dict[str, int]:
    """Features of each distinct input of linear sites, by the first module that reads it.

    Modules that make heads or neurons of the same site share their input.
    """
    first: dict[str, Member] = {}
    for site in inventory.parents:
        if site.structured:
            first |= {member.module: site.members[0] for member in site.members[:-1]}
    linear = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
    readers = [first.get(member.module, member) for member in linear]
    return {member.module: member.shape[1] for member in readers}


def _filled(study_file: StudyFile, space: Space, budget_bytes: int) -> Space:
    """The space whose records are compressed; for a lazy bank, an estimate with bits that matter equally everywhere."""
    if not is_lazy(study_file, space):
        return space
    free = data_free(space)
    leaves = replace(
        free, options={site.name: free.options[site.name] if site.is_leaf else () for site in free.inventory.sites}
    )
    near = narrowed(space, leaves, _guessed(leaves), budget_bytes)
    return replace(
        space,
        options={name: tuple(dict.fromkeys((*free.options[name], *near.options[name]))) for name in space.options},
    )


def _guessed(space: Space) -> dict[tuple[str, Choice], float]:
    """Losses proportional to the squared rounding error: a quarter per additional bit, half if calibrated."""

    def guess(site: Site, choice: Choice) -> float:
        weights = sum(member.parameters for member in site.members)
        bits = 8 * site_bytes(site, choice) / weights
        return 0.0 if choice == KEEP else weights * 4.0**-bits * (0.5 if choice.needs else 1.0)

    return {
        (site.name, choice): guess(site, choice)
        for site in space.inventory.sites
        for choice in space.options[site.name]
    }


def _file_bytes(site: Site, choice: Choice) -> int:
    return file_bytes(
        site_layout(site, choice), {ABOUT: json.dumps(about_of(site, choice, ANY_SHA256) | {DIGEST: ANY_SHA256})}
    )


def _moment_bytes(inventory: Inventory, widths: Mapping[str, int]) -> int:
    """Bytes of one draw's moments: a file per distinct input, and their index."""
    files = sum(
        file_bytes(
            {"second_moment": TensorSpec("float32", (width, width)), "mean_absolute": TensorSpec("float32", (width,))},
            _SAID,
        )
        for width in widths.values()
    )
    modules = {member.module: "0" * 28 for site in inventory.leaves if site.kind == "linear" for member in site.members}
    blocks = sum(site.kind == "block" for site in inventory.parents)
    return files + len(json.dumps({"files": modules, "distances": [0.1234567890123456] * blocks, DIGEST: ANY_SHA256}))


def _importance_bytes(inventory: Inventory) -> int:
    members = [member for site in inventory.leaves if site.kind == "linear" for member in site.members]
    files = sum(file_bytes({"importance": TensorSpec("float32", member.shape)}, _SAID) for member in members)
    return files + len(json.dumps({"files": {member.module: "0" * 39 for member in members}, DIGEST: ANY_SHA256}))


def _book_bytes(study_file: StudyFile, space: Space, pairs: Pairs) -> int:
    sites, trials = len(space.inventory.leaves), study_file.trials or 0
    plans = 3 * (SEARCHED + UNIFORM) + trials  # plan files on the front and the trials hold each plan in full
    journal = JOURNAL_BYTES if study_file.trials is None else min(JOURNAL_BYTES, trials * sites * JOURNAL_CHOICE_BYTES)
    return (
        journal
        + REPORT_BYTES
        + (FACT_BYTES + 70) * len(pairs)
        + trials * TRIAL_BYTES
        + (plans + 10) * sites * CHOICE_BYTES
    )
