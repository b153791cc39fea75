"""The benchmarks that are run by name."""

from __future__ import annotations

import subprocess
import sys

from shared import ROOT


def test_every_benchmark_finds_what_it_imports() -> None:
    """No import is left behind when a module moves: the benchmarks run too seldom to notice it themselves."""
    names = [f"benchmarks.runs.{path.stem}" for path in sorted((ROOT / "benchmarks" / "runs").glob("[a-z]*.py"))]
    assert len(names) > 10
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
