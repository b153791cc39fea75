"""The walls of the house."""

from __future__ import annotations

import ast
import os
import pkgutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import paredown
from shared import ROOT

PACKAGES = ("space", "compressors", "evaluators", "search", "deploy", "interface")
LOWER = {"space", "compressors", "evaluators"}

ROOMS: dict[str, set[str]] = {
    "space": set(),
    "compressors": {"space"},
    "compressors/numerics": {"space"},
    "compressors/tensor_files": {"space"},
    "compressors/rounding": {"space", "compressors/numerics"},
    "compressors/pruning": {"space", "compressors/numerics"},
    "compressors/original": {"space", "compressors/tensor_files"},
    "compressors/calibration": {"space", "compressors/original", "compressors/tensor_files"},
    "compressors/bank": {"space", "compressors/calibration", "compressors/original", "compressors/tensor_files"},
    "compressors/methods": {
        "space", "compressors/bank", "compressors/numerics", "compressors/pruning", "compressors/rounding"
    },
    "compressors/model": {
        "space", "compressors/bank", "compressors/calibration", "compressors/methods", "compressors/numerics",
        "compressors/original", "compressors/tensor_files",
    },
    "evaluators": {"space", "compressors"},
    "search": set(),
    "search/pareto": LOWER,
    "search/trial": LOWER | {"search/pareto"},
    "search/solver": LOWER,
    "search/surrogate": LOWER | {"search/pareto", "search/solver", "search/trial"},
    "search/neighbours": LOWER | {"search/solver"},
    "search/samplers": LOWER | {
        "search/neighbours", "search/pareto", "search/solver", "search/surrogate", "search/trial"
    },
    "search/sensitivity": LOWER | {"search/solver"},
    "search/outcome": LOWER | {"search/pareto", "search/trial"},
    "search/trials": LOWER | {"search/outcome", "search/samplers", "search/solver", "search/trial"},
    "search/report": LOWER | {
        "search/outcome", "search/pareto", "search/sensitivity", "search/trial", "search/trials"
    },
    "search/workbench": LOWER | {"search/outcome"},
    "search/finalists": LOWER | {"search/outcome", "search/trial", "search/trials", "search/workbench"},
    "search/cost": LOWER | {
        "search/finalists", "search/samplers", "search/sensitivity", "search/solver", "search/trials",
        "search/workbench",
    },
    "search/study": LOWER | {
        "search/cost", "search/finalists", "search/neighbours", "search/outcome", "search/samplers",
        "search/sensitivity", "search/solver", "search/surrogate", "search/trial", "search/trials", "search/workbench",
    },
    "deploy": LOWER,
    "interface": LOWER | {"search", "deploy"},
}  # fmt: skip
"""The rooms that each room may import, beside itself. A folder without a line belongs to the room that it lies in."""

STARTS = {"compressors/bank/fill_worker.py": "compressors/methods"}
"""Programs that are started on their own, each with the room that it imports to register what is there."""

FOR_ALL = {"space/errors.py", "space/system/registry.py"}
"""Modules that every room may import."""

ONLY_IN = {
    "filelock": lambda path: path == "space/system/locks.py",
    "optuna": lambda path: path.startswith(("search/trials/", "search/samplers/")),
    "optuna_dashboard": lambda path: path.startswith("interface/"),
    "ruamel": lambda path: path == "space/system/yaml_files.py",
    "subprocess": lambda path: path == "space/system/child.py",  # what is started elsewhere could outlive us
    "typer": lambda path: path.startswith("interface/cli/"),
    "torch": lambda path: not path.startswith("space/"),
    "transformers": lambda path: not path.startswith("space/"),
    "yaml": lambda path: path == "space/system/yaml_files.py",
}


def sources() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, wherever in the file it stands; what only type checkers read is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def module_of(name: str) -> str:
    """Full name of the module in a file."""
    parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(["paredown", *parts[parts[0] == "interface" :]])


FILES = {module_of(name): name for name, _ in sources()}
"""The file of each module."""


def ours(path: Path) -> Iterator[tuple[int, str]]:
    """Line and file of every module of ours that a file imports."""
    for line, name in imported(path):
        while name not in FILES and "." in name:
            name = name.rpartition(".")[0]
        if name in FILES:
            yield line, FILES[name]


def room_of(name: str) -> str:
    """The room of a file: the longest line of the table that it lies under."""
    return max((room for room in ROOMS if f"{name.removesuffix('.py')}/".startswith(f"{room}/")), key=len)


def test_imports_go_one_way() -> None:
    """As the table says; absolute throughout."""
    faults = []
    for name, path in sources():
        room = room_of(name)
        for line, other in ours(path):
            target = room_of(other)
            allowed = target == room or any(f"{target}/".startswith(f"{each}/") for each in ROOMS[room])
            if not allowed and other not in FOR_ALL and STARTS.get(name) != target:
                faults.append(f"{name}:{line}: {room} imports {other}")
        faults += [f"{name}:{line}: relative import {module}" for line, module in imported(path) if module[0] == "."]
    assert not faults, "\n".join(faults)


def test_no_circle_of_rooms_or_modules() -> None:
    """Neither the table nor the modules lead back to where they start; imports inside functions count."""
    rooms = {room: set(others) - {room} for room, others in ROOMS.items()}
    modules = {name: {other for _, other in ours(path)} - {name} for name, path in sources()}
    for graph in (rooms, modules):
        assert set(TopologicalSorter(graph).static_order()) >= graph.keys()  # raises CycleError, with the circle


def test_big_third_parties_have_one_door() -> None:
    """What is heavy or optional is imported in one place, so that it can be left out or replaced there."""
    faults = [
        f"{name}:{line}: imports {module}"
        for name, path in sources()
        for line, module in imported(path)
        if (door := ONLY_IN.get(module.split(".")[0])) and not door(name)
    ]
    assert not faults, "\n".join(faults)


def test_every_package_is_installed() -> None:
    """A folder with Python files that pyproject.toml does not list would be missing after installation."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {name.rpartition("/")[0].replace("/", ".") for name, _ in sources()}
    found = {f"paredown.{folder}".replace(".interface", "") for folder in folders}
    assert sorted(listed) == sorted(found)
    assert (Path(paredown.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    "modules", ["paredown.space.plan_file, paredown.space.study_file", "paredown.compressors.methods"]
)
def test_plans_are_read_without_torch(modules: str, tmp_path: Path) -> None:
    """A plan is read, checked and its bytes are counted where torch was never imported."""
    program = f"import {modules}, sys; print(sorted({{'torch', 'transformers', 'optuna', 'scipy'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_function_bears_the_name_of_a_module() -> None:
    """`import paredown.search` binds the package `search` to that name, and would hide a function."""
    modules = {module.name for module in pkgutil.iter_modules(paredown.__path__)}
    assert {"search", "cli"} <= modules
    assert not modules & set(paredown.__all__)


@pytest.mark.parametrize("folder", ["checkout", "elsewhere"])
def test_modules_are_imported_under_their_full_names(folder: str, tmp_path: Path) -> None:
    """The package and its modules are found wherever Python is started, with the checkout first on its path, too."""
    program = "import paredown; import paredown.search.solver.solver as solver; "
    program += "print(solver.Solver.__name__, callable(paredown.find_plan))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    place = ROOT if folder == "checkout" else tmp_path
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=place, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "Solver True"


MOST = {"files of a folder": 14, "lines": 300, "lines of a function": 60, "methods": 12, "fields": 12, "columns": 120}
"""Upper bounds."""

EXCEPTIONS = {
    "space/study_file.py StudyFile fields": "a file that people write has as many keys as there are questions",
    "scripts/train_demo_model.py main lines of a function": "how the embedded model was trained, as it was run",
}
"""What may exceed its bound, each with its reason."""


def sizes() -> Iterator[tuple[str, str, int]]:
    """Everything that has a bound: its name, what is counted, and the count."""
    folders: Counter[str] = Counter()
    for top in (*PACKAGES, "benchmarks", "docs/generate", "scripts", "tests"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            folders[name.rpartition("/")[0]] += 1
            yield name, "lines", text.count("\n")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    yield f"{name} {node.name}", "lines of a function", (node.end_lineno or 0) - node.lineno + 1
                elif isinstance(node, ast.ClassDef):
                    yield f"{name} {node.name}", "fields", len(fields_of(node))
                    methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"]
                    yield f"{name} {node.name}", "methods", len(methods)
    yield from ((folder, "files of a folder", count) for folder, count in folders.items())


def fields_of(node: ast.ClassDef) -> set[str]:
    """What a class annotates in its body, and what its methods set on ``self``; private fields too."""
    annotated = {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return annotated | {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def test_everything_fits_a_screen() -> None:
    """Folders, files, functions and classes; the exceptions are few, each with its reason, and each is needed."""
    large = {f"{name} {what}": count for name, what, count in sizes() if count > MOST[what]}
    assert set(large) - EXCEPTIONS.keys() == set(), large
    assert EXCEPTIONS.keys() <= set(large), "what fits by now has no line here any more"
    assert len(EXCEPTIONS) <= 1 + 5  # study files, and five more


def test_no_line_is_too_long() -> None:
    """Pages, too, outside tables; ruff checks Python."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "studies").rglob("*.md")]
    faults = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MOST["columns"] and line[0] != "|"
    ]
    assert pages and not faults, "\n".join(faults)
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["line-length"] == MOST["columns"]
    assert "E" in ruff["lint"]["select"] and "E501" not in ruff["lint"].get("ignore", [])
