"""Tries the mutants of tests/mutants.toml: plausible mistakes that a test must notice by the code's behaviour."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = [
    f"transformers.models.{name}.modeling_{name}" for name in ("bert", "gpt2", "llama", "mistral", "opt", "qwen2")
]
SHARED = ["torch", "optuna", "pandas", "matplotlib.figure", "scipy.stats", "compressed_tensors", *FAMILIES]
"""Modules that are imported once, because that takes longer than most tests; each mutant runs in a fork."""

OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


def mutated(mutant: dict[str, Any], root: Path = ROOT) -> str:
    """The mutant's file with the mistake in it; exits if ``old`` does not occur there exactly once."""
    text = (root / mutant["file"]).read_text()
    if (count := text.count(mutant["old"])) == 1:
        return text.replace(mutant["old"], mutant["new"])
    sys.exit(
        f"{mutant['name']}: expected {mutant['old']!r} once in {mutant['file']}, found it {count} times; "
        "mend tests/mutants.toml"
    )


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names in a folder of the checkout that no test needs."""
    large = {"build", "runs", "checkpoints"} if Path(folder) == ROOT else set()
    return {name for name in names if name.startswith(".") or name == "__pycache__" or name in large}


def run_tests(tests: list[str], mutant: dict[str, Any] | None = None) -> tuple[int, list[str], float]:
    """Runs tests on a copy of the tree; returns pytest's exit code, the failed tests and the duration [s]."""
    failed, started = list[str](), time.monotonic()

    class Failed:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    with (
        tempfile.TemporaryDirectory(prefix="mutant-") as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
    ):
        tree, installed = Path(folder, "tree"), Path(folder, "installed")
        shutil.copytree(ROOT, tree, ignore=left_out)
        if mutant:
            (tree / mutant["file"]).write_text(mutated(mutant))
        for name, source in tomllib.loads((tree / "pyproject.toml").read_text())["tool"]["setuptools"][
            "package-dir"
        ].items():
            shutil.copytree(tree / source, installed / name.replace(".", "/"), dirs_exist_ok=True)
        sys.path.insert(0, str(installed))
        os.environ["PYTHONPATH"] = str(installed)  # for child processes of the tests
        os.chdir(tree)
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("took longer than ten minutes"))
        signal.alarm(600 if mutant else 0)
        code = pytest.main([*OPTIONS, *tests], plugins=[Failed()])
    return int(code), failed, time.monotonic() - started


def main(words: str) -> int:
    """Prints the table; returns 1 if a mutant survives or a test fails without one."""
    mutants = [
        m
        for m in tomllib.loads((ROOT / "tests/mutants.toml").read_text())["mutant"]
        if words in m["name"] and mutated(m)
    ]
    os.environ |= {
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    context, survived = get_context("forkserver"), 0
    context.set_forkserver_preload(SHARED)
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), context, max_tasks_per_child=1) as pool:
        whole = pool.submit(run_tests, list(dict.fromkeys(test for mutant in mutants for test in mutant["tests"])))
        runs = [pool.submit(run_tests, mutant["tests"], mutant) for mutant in mutants]
        for mutant, run in zip(mutants, runs, strict=True):
            code, failed, seconds = run.result()
            survived += code != 1
            found = (
                f"killed by {failed[0]}" if code == 1 else f"SURVIVED{f' (pytest exits with {code})' if code else ''}"
            )
            print(f"{mutant['name']:72} {seconds:4.0f} s  {found}", flush=True)
    print(f"{len(mutants)} mutants, {survived} survived; without a mutant {whole.result()[1] or 'no test'} fails")
    return int(survived > 0 or whole.result()[0] != 0)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
