"""The walls of the house."""

from __future__ import annotations

import ast
import os
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import paredown
from shared import ROOT

MAY_IMPORT = {
    "space": set(),
    "compressors": {"space"},
    "evaluators": {"space", "compressors"},
    "search": {"space", "compressors", "evaluators"},
    "deploy": {"space", "compressors", "evaluators"},
    "interface": {"space", "compressors", "evaluators", "search", "deploy"},
}
ONLY_IN = {
    "ray": lambda path: path == "search/workers/ray.py",
    "optuna": lambda path: path == "search/trials/race.py" or path.startswith("search/samplers/"),
    "optuna_dashboard": lambda path: path.startswith("interface/"),
    "subprocess": lambda path: (
        path in ("space/system/child.py", "compressors/bank/fill.py")
    ),  # what is started elsewhere could outlive us
    "typer": lambda path: path.startswith("interface/cli/"),
    "torch": lambda path: not path.startswith("space/"),
    "transformers": lambda path: not path.startswith("space/"),
}


def sources() -> Iterator[tuple[str, Path]]:
    for package in MAY_IMPORT:
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


def test_imports_go_one_way() -> None:
    """space <- compressors <- evaluators <- {search, deploy} <- interface; absolute throughout."""
    faults = []
    for name, path in sources():
        package = name.split("/")[0]
        for line, module in imported(path):
            parts = module.split(".")
            if module.startswith("."):
                faults.append(f"{name}:{line}: relative import {module}")
            elif parts[0] == "paredown":
                other = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "interface"
                if other != package and other not in MAY_IMPORT[package]:
                    faults.append(f"{name}:{line}: {package} imports {module}")
    assert not faults, "\n".join(faults)


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
