"""Choices of a whole attention, feed-forward network or block."""

from __future__ import annotations

import pytest

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.space.choice import MatrixChoice, matrix_choice, methods, parse_choice
from paredown.space.errors import PlanError
from paredown.space.layouts import choice_members, site_layout
from paredown.space.site import Member, Site
from paredown.space.structure_choice import Structure, StructureChoice


def test_a_method_is_for_matrices_or_for_structures() -> None:
    """Each of one sort only, as its kinds of sites say."""
    for name in methods:
        method, leaves = methods[name], methods[name].kinds & {"linear", "embedding"}
        assert issubclass(method, MatrixChoice) == bool(leaves) != issubclass(method, StructureChoice), name
        assert not leaves or leaves == method.kinds, name


def test_what_removes_a_site_leaves_no_matrix() -> None:
    """Neither members nor tensors; as the choice of a matrix it is refused with the sites that it is for."""
    drop = parse_choice("drop")
    assert isinstance(drop, StructureChoice)
    members = tuple(Member(module=f"mlp.{name}", shape=(8, 8), dtype="float32") for name in ("up", "down"))
    site = Site(name="mlp.{up,down}", kind="ffn", block=0, members=members)
    assert choice_members(site, drop) == [] and site_layout(site, drop) == {}
    with pytest.raises(PlanError, match="drop does not change the structure of a site"):
        drop.restructure(site, Structure(matrices=[], biases=[], statistics=[]))
    with pytest.raises(PlanError, match="drop leaves no matrix to store; it is for attention and block and ffn sites"):
        matrix_choice(drop)
