"""The mutants that scripts/mutants tries."""

from __future__ import annotations

import re
import runpy
import tomllib

import pytest

from shared import ROOT

MUTANTS = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())["mutant"]
mutated = runpy.run_path(str(ROOT / "scripts" / "try_mutants.py"))["mutated"]


def test_every_mutant_still_applies() -> None:
    """Code that moves takes its mutants along; a mutant whose text is gone is refused by name."""
    for mutant in MUTANTS:
        assert mutated(mutant) != (ROOT / mutant["file"]).read_text()
    with pytest.raises(
        SystemExit,
        match="lost: expected 'no such text' once in search/sensitivity/measurement_cache.py, found it 0 times",
    ):
        mutated({"name": "lost", "file": "search/sensitivity/measurement_cache.py", "old": "no such text", "new": ""})


def test_every_mutant_has_a_name_and_tests_that_exist() -> None:
    assert len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS) > 40
    for mutant in MUTANTS:
        assert mutant["tests"]
        for path, _, test in (name.partition("::") for name in mutant["tests"]):
            assert re.search(rf"^def {test or 'test_'}", (ROOT / path).read_text(), re.MULTILINE), mutant["name"]
