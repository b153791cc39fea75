"""Extensions of another distribution work as our own do, in a process that knows only that it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from paredown.compressors.tensor_files.record_names import described
from shared import toys
from shared.commands import command, environment
from shared.third_party.install import install

Folder = Callable[[str], Path]

SEARCH = """
import sys
from pathlib import Path

import paredown
from paredown.compressors.bank import fill

fill._alone = lambda *ignored: None  # other processes do all the work
root = Path(sys.argv[1])
study = paredown.StudyFile.read(root / "study.yaml")
outcome = paredown.find_plan(study, root / "out", workers=2)
assert len(outcome.trials.measured) == 3
paredown.apply(root / "out" / "best" / "plan.yaml", sys.argv[2], root / "model")
paredown.find_plan(study.model_copy(update={"trials": 10}), root / "out")
"""
"""Program that searches with two processes, applies the winner's plan, verifies it, and searches on."""


def test_one_extension_of_each_kind_finishes_a_search_and_verifies(pico: Folder, tmp_path: Path) -> None:
    """The target's ties and refusals hold, the sampler proposes, the metric measures, the engine verifies.

    Another process compresses with the method, and another version of the distribution is another input.
    """
    model, site, processes = pico("mistral"), install(tmp_path / "site"), tmp_path / "processes"
    study = {
        "model": str(model),
        "data": [str(toys.write_text(tmp_path / "text.txt", toys.passages(120)))],
        "target": "fused",
        "budget": "60%",
        "trials": 3,
        "patience": "off",
        "latency": "off",
        "metric": "reverse-kl",
        "sampler": "last-choice",
        "tokens": {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32},
        "space": {"choices": {"linear": ["half-step", "keep"], "embedding": ["half-step", "keep"]}, "max_drops": 0},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    known = environment() | {"PYTHONPATH": str(site), "PAREDOWN_SAMPLE_PROCESSES": str(processes)}
    with subprocess.Popen([sys.executable, "-c", SEARCH, str(tmp_path), str(model)], env=known) as process:
        assert process.wait() == 0
    assert set(processes.read_text().split()) - {str(process.pid)}
    records = [described(path) for path in (tmp_path / "out" / "bank").glob("??/*.safetensors")]
    versions = [record["extensions"] for record in records if record["choice"] == "half-step"]
    assert versions and all(each == {"paredown-sample": "1.2.3"} for each in versions)
    front = json.loads((tmp_path / "out" / "front.json").read_text())
    assert front["metric"] == "reverse-kl"
    assert front["records"][-1]["origin"] == "last-choice"
    plan = yaml.safe_load((tmp_path / "model" / "plan.yaml").read_text())
    assert plan["target"] == "fused"
    assert plan["quality"]["unit"] == "nats/token"
    assert plan["records"]["versions"]["paredown-sample"] == "1.2.3"
    assert any(name.endswith("self_attn.{q,k,v}_proj") for name in plan["choices"])
    assert all(choice == {"method": "half-step"} and "embed" not in name for name, choice in plan["choices"].items())

    newer = known | {"PYTHONPATH": str(install(tmp_path / "newer", "1.3.0"))}
    again = command("search", tmp_path / "study.yaml", "--out", tmp_path / "out")
    found = subprocess.run(again, env=newer, capture_output=True, text=True)
    assert found.returncode == 2
    assert "changed (paredown-sample 1.2.3 -> 1.3.0)" in found.stderr
    without = subprocess.run(again, env=os.environ, capture_output=True, text=True)
    assert without.returncode == 2
    assert "unknown target 'fused'" in without.stderr and "unknown method 'half-step'" in without.stderr


def test_a_package_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path) -> None:
    """By the first command that needs what it offers; with the exit code of what people can mend."""
    site = install(tmp_path)
    (site / "paredown_sample" / "half_step.py").write_text("import missing_library\n")
    known = environment() | {"PYTHONPATH": str(site)}
    (tmp_path / "study.yaml").write_text("model: somewhere\nspace: {choices: {linear: [keep]}}\n")
    found = subprocess.run(command("validate", tmp_path / "study.yaml"), env=known, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"paredown: {tmp_path / 'study.yaml'}:2: space.choices: "
        "method 'half-step' of paredown-sample 1.2.3 cannot be imported "
        "(ModuleNotFoundError: No module named 'missing_library'); update or uninstall that package\n"
    )
