"""Choices as text and as mappings."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given

from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import PlanError, UnknownNameError
from paredown.space.layouts import matrix_fault, site_fault
from paredown.space.site import Member, Site
from paredown.space.targets.target import targets
from shared import strategies


@given(strategies.choices)
def test_text_and_mapping_are_the_choice(choice: Choice) -> None:
    """Both forms lead back to the same value, which is hashable and travels between processes."""
    assert parse_choice(str(choice)) == choice
    assert parse_choice(choice.to_mapping()) == choice
    assert str(parse_choice(str(choice))) == str(choice)
    assert hash(parse_choice(choice.to_mapping())) == hash(choice)
    assert pickle.loads(pickle.dumps(choice)) == choice


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("quantize  bits=4 group_size=64", "quantize bits=4 group_size=64"),
        ("quantize group_size=64 bits=4", "quantize bits=4 group_size=64"),
        ("quantize bits=4 group_size=channel symmetric=true algorithm=search", "quantize bits=4"),
        ("lowrank rank=96 then quantize bits=8", "lowrank rank=96 then quantize bits=8"),
        ("prune sparsity=0.50", "prune sparsity=0.5"),
        ("keep", "keep"),
        ("drop", "drop"),
    ],
)
def test_there_is_one_canonical_text(written: str, canonical: str) -> None:
    """Order, spaces and defaults do not matter: equal choices have equal text."""
    assert str(parse_choice(written)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown method ''"),
        ("quantise bits=4", "unknown method 'quantise'; did you mean 'quantize'"),
        ("quantize", "quantize: bits: Field required"),
        ("quantize bits=4 bits=8", "expected 'method knob=value ...'.*bits=8"),
        ("quantize bits", "expected 'method knob=value ...'"),
        ("quantize bits=four", "quantize: bits: .*valid integer"),
        (
            "quantize bits=4 groupsize=64",
            r"groupsize: Extra inputs are not permitted \(its knobs: then, bits, group_size",
        ),
        ("cluster clusters=1 size=3", "clusters: .*greater than or equal to 2.*; size: Extra inputs"),
        ("lowrank rank=0", "rank: .*greater than or equal to 1"),
        ("lowrank rank=3 then nonsense", "unknown method 'nonsense'"),
    ],
)
def test_what_is_no_choice_is_refused_with_all_its_faults(text: str, message: str) -> None:
    """The message names the knob, what was got, and what is known."""
    with pytest.raises((PlanError, UnknownNameError), match=message):
        parse_choice(text)


@pytest.mark.parametrize("mapping", [{}, {"bits": 4}, {"method": 3}, {"method": None}])
def test_a_mapping_without_a_method_is_refused(mapping: dict[str, object]) -> None:
    """It says which methods there are."""
    with pytest.raises(PlanError, match="a choice needs a method.*known: awq, cast, cluster"):
        parse_choice(mapping)


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        ("keep then cast", "means 'cast'; write 'cast'"),
        ("quantize bits=4 then cast", "leaves no dense part"),
        ("lowrank rank=2 then drop", "'drop' cannot follow 'lowrank'"),
        ("lowrank rank=2 then prune-neurons sparsity=0.5", "cannot follow"),
        ("lowrank rank=2 then quantize bits=4 group_size=16", "does not divide in_features 2"),
        ("lowrank rank=2 then lowrank rank=3", "above the full rank 2"),
    ],
)
def test_compositions_without_sense_are_refused(choice: str, fault: str) -> None:
    """Before any weight is touched."""
    assert fault in str(matrix_fault(parse_choice(choice), (32, 64)))


@pytest.mark.parametrize(
    ("choice", "kind"), [("drop", "linear"), ("quantize bits=4", "block"), ("prune sparsity=0.5", "embedding")]
)
def test_a_method_goes_where_it_belongs(choice: str, kind: str) -> None:
    """A layer is not dropped, a block is not quantized, an embedding is not pruned."""
    members = () if kind == "block" else (Member(module="m", shape=(32, 64), dtype="float32"),)
    site = Site(name="m", kind=kind, block=0, members=members)
    assert f"m is of kind {kind}" in str(site_fault(site, parse_choice(choice), targets["paredown"]))
    assert site_fault(site, KEEP, targets["paredown"]) is None or kind == "block"
