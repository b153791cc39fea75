"""The documentation agrees with the code: tables, schemas and examples."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import paredown
import paredown.compressors.methods  # noqa: F401 - registers the methods
from docs.generate.schema import keys, plan_schema, study_schema
from docs.generate.what_runs_where import EXAMPLES, rows
from paredown.compressors.bank.encoding import decode_matrix, encode_matrix
from paredown.compressors.pruning.pattern import criteria
from paredown.compressors.rounding.grid import Rounding, roundings
from paredown.space.choice import MatrixChoice, methods, parse_choice
from paredown.space.layouts import matrix_layout
from paredown.space.plan_file import PlanFile
from paredown.space.statistics import Statistics
from paredown.space.study_file import StudyFile
from paredown.space.system.registry import Registry
from paredown.space.targets.target import targets
from shared import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks of a language in all pages, each with its place."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found.append((f"{page.name}:{text[: match.start()].count(chr(10)) + 1}", match[1]))
    return found


def test_tables_and_schemas_are_up_to_date() -> None:
    """What the documentation takes from the code is what the code says now."""
    assert runpy.run_path(str(ROOT / "docs/generate/__main__.py"))["check"]() == []


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    """A page that lacks its block, or holds another text in it, is named with the remedy."""
    script = runpy.run_path(str(ROOT / "docs/generate/__main__.py"))
    (tmp_path / "README.md").write_text("<!-- what-runs-where -->\nnothing does\n<!-- end -->\n")
    faults = script["check"](tmp_path)
    assert "README.md is out of date; run python -m docs.generate" in faults
    assert any(fault.startswith("docs/study.md has no block study-keys; put '<!-- study-keys -->'") for fault in faults)


@pytest.mark.parametrize(
    ("place", "text"), blocks("yaml"), ids=lambda value: value if ":" in value and "\n" not in value else ""
)
def test_every_example_file_is_valid(place: str, text: str, tmp_path: Path) -> None:
    """Each block of YAML is a whole plan or a whole study, and its schema knows every key of it."""
    path = tmp_path / "example.yaml"
    path.write_text(text)
    data = yaml.safe_load(text)
    value: PlanFile | StudyFile = PlanFile.read(path) if "base_model" in data else StudyFile.read(path)
    schema = plan_schema() if isinstance(value, PlanFile) else study_schema()
    assert set(data) <= set(schema["properties"]), place


def test_the_reader_of_the_format_page_reads() -> None:
    """The code that the page gives to people without paredown decodes as paredown does."""
    (_, code), *_ = [block for block in blocks("python") if "def read_quantized" in block[1]]
    space: dict[str, Any] = {}
    exec(code, space)
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    for text in (
        "quantize bits=3 group_size=32",
        "quantize bits=5 group_size=48 symmetric=false",
        "quantize bits=8",
        "quantize bits=6",
    ):
        choice = parse_choice(text)
        stored = encode_matrix(choice, weight, "bfloat16")
        named = {f"m.{name}": tensor for name, tensor in stored.items()}
        read = space["read_quantized"](named, "m", choice.bits, 96)  # type: ignore[attr-defined]
        assert torch.equal(read, decode_matrix(choice, stored, (24, 96))), text


def import_example(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports the example of a page in which a line stands, as a file of its own."""
    (_, code), *_ = [block for block in blocks("python") if line in block[1]]
    (folder / "contributed_example.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "contributed_example", raising=False)
    importlib.import_module("contributed_example")


def test_the_method_of_the_contributors_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example stores what it predicts, is of some use, and of more use to the outputs when it is calibrated."""
    monkeypatch.setattr("paredown.space.choice.methods", Registry("method"))
    import_example('@methods.register("sign")', tmp_path, monkeypatch)
    choice = parse_choice("sign weighting=inputs")
    generator = torch.Generator().manual_seed(0)
    weight, inputs = (
        torch.randn(24, 96, generator=generator),
        torch.randn(200, 96, generator=generator) * torch.arange(96),
    )
    statistics = Statistics(second_moment=inputs.T @ inputs / 200)
    losses = []
    for one in (choice, choice.data_free):
        assert one is not None
        tensors = encode_matrix(one, weight, "bfloat16", statistics.only(one.needs))
        expected = matrix_layout(one, (24, 96), "bfloat16")
        assert {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()} == {
            name: (f"torch.{spec.dtype}", spec.shape) for name, spec in expected.items()
        }
        losses.append(float(((decode_matrix(one, tensors, (24, 96)) - weight) @ inputs.T).square().sum()))
    assert losses[0] < losses[1] < 0.6 * float((weight @ inputs.T).square().sum())


def test_the_rounding_of_the_contributors_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered beside the others, it is a value of the knob, and rounds well enough at 8 bits."""
    known = Registry[Rounding]("algorithm")
    for name in roundings:
        known.register(name)(roundings[name])
    for module in ("rounding.grid", "methods.quantize"):
        monkeypatch.setattr(f"paredown.compressors.{module}.roundings", known)
    import_example('roundings.register("mean-range")', tmp_path, monkeypatch)
    choice = parse_choice("quantize bits=8 group_size=32 algorithm=mean-range")
    weight = torch.rand(24, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    decoded = decode_matrix(choice, encode_matrix(choice, weight, "bfloat16"), (24, 96))
    torch.testing.assert_close(decoded, weight, rtol=0, atol=0.01)


def test_the_format_page_names_every_tensor() -> None:
    """No method stores a tensor that the page does not describe."""
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for row in rows():
        for text in row.choices:
            choice = parse_choice(text)
            names = set()
            if isinstance(choice, MatrixChoice):
                names = {*choice.own((1024, 1024), "bfloat16"), *choice.parts((1024, 1024))}
            assert all(f"| `{name}` |" in page for name in names), text
            assert f"\n`{choice.method}" in page, text


def test_the_methods_page_lists_every_algorithm_with_its_source() -> None:
    """Each registered algorithm has one line of the page, with the paper that its docstring names."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
    for name in (*roundings, *criteria):
        assert sum(line.startswith(f"| `{name}` | ") for line in page) == 1, name
    for name, number in (("gptq", "2210.17323"), ("wanda", "2306.11695")):
        (line,) = [line for line in page if line.startswith(f"| `{name}` | `second_moment` | ")]
        assert line.endswith(" |") and f"arXiv {number}" in line


def test_the_table_has_every_method_and_claims_no_more_than_targets_take() -> None:
    """Each method has a row; paredown runs whatever any target runs; drop is the only method of blocks."""
    found = rows()
    assert {parse_choice(text).method for row in found for text in row.choices} == set(methods)
    for row in found:
        assert len(row.targets) == len(EXAMPLES)
        assert all("paredown" in names for names in row.targets if names), row
        assert any(row.targets), row
    storage = {parse_choice(row.choices[0]).method for row in found if row.runs_as.startswith("storage only")}
    listed = [parse_choice(text) for row in found for text in row.choices]
    assert storage == {choice.method for choice in listed if any(step.storage.storage_only for step in choice.steps)}


def test_a_schema_knows_every_method_and_knob() -> None:
    """In both files: a definition a method with exactly its knobs; all references lead somewhere.

    No other key is taken.
    """
    for schema in (plan_schema(), study_schema()):
        known = schema["$defs"]
        assert [one["$ref"] for one in known["Choice"]["oneOf"]] == [f"#/$defs/method-{name}" for name in methods]
        for name in methods:
            method = known[f"method-{name}"]
            assert set(method["properties"]) - {"then"} == {"method", *methods[name].model_fields} - {"then"}
            assert set(method["required"]) == {
                "method",
                *(k for k, f in methods[name].model_fields.items() if f.is_required()),
            }
            assert method["properties"]["method"] == {"const": name}
            assert method["additionalProperties"] is False
        for reference in references(schema):
            assert reference.removeprefix("#/$defs/") in known
        assert schema["properties"]["target"]["enum"] == list(targets)


def references(value: Any) -> Iterator[str]:
    """Every ``$ref`` in a schema."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key == "$ref":
            yield inner
        else:
            yield from references(inner)


def test_the_keys_of_a_study_are_those_that_it_takes() -> None:
    """The table of the page lists every key, nested ones after a dot, with the default that the value has."""
    listed = {key: default for key, default, _ in keys(StudyFile)}
    assert {key.split(".")[0] for key in listed} == set(StudyFile.model_fields)
    assert listed["model"] == "required"
    assert listed["tokens.search"] == str(StudyFile(model="m").tokens.search)


def defined(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Names of the functions, classes and methods of a module; methods after their class and a dot."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(node, f"{prefix}{node.name}.")


def test_the_tour_leads_to_what_exists() -> None:
    """Every function of the tour is in the file that it names; it has about ten stops, in order."""
    page = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    stops = re.findall(r"^## (\d+)\. ", page, re.MULTILINE)
    assert stops == [str(number + 1) for number in range(len(stops))] and 8 <= len(stops) <= 12
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", page)
    assert len(links) == page.count("](") >= 20
    for name, file in links:
        assert name in set(defined(ast.parse((ROOT / file).read_text(encoding="utf-8")))), f"{file} has no {name}"


def test_every_path_in_the_pages_exists() -> None:
    """A file that moved takes its mentions along; capitals such as NAME stand for what a reader fills in."""
    tops = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._")
    for page in PAGES:
        for path in re.findall(rf"(?<![\w./-])(?:{tops})/[\w./-]*\w", page.read_text(encoding="utf-8")):
            if not path.startswith("runs/") and not re.search(r"[A-Z]{3}", path):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_page_lists_every_group_of_entry_points() -> None:
    """As the registries name them; the examples of the page are among them."""
    sources = [path.read_text(encoding="utf-8") for path in Path(paredown.__file__).parent.rglob("*.py")]
    groups = {group for text in sources for group in re.findall(r'group="(paredown\.\w+)"', text)}
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    listed = [
        group for line in page.splitlines() if line[:2] == "| " for group in re.findall(r"`(paredown\.\w+)`", line)
    ]
    assert sorted(listed) == sorted(groups) != []
    for _, text in blocks("toml"):
        assert set(tomllib.loads(text)["project"]["entry-points"]) <= groups
