"""The command line: what comes out, exit codes and messages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paredown
from paredown.cli import commands as cli
from shared.commands import call, command, environment, write_study


@pytest.fixture(scope="module")
def workshop(pico: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a study file of a pico Llama."""
    folder = tmp_path_factory.mktemp("workshop")
    write_study(folder, pico("llama"))
    (folder / "empty.txt").write_text("\n")
    (folder / "short.txt").write_text("Once upon a time.\n")
    return folder


@pytest.fixture(scope="module")
def finished(workshop: Path) -> Path:
    """A small study that came to its end, made once."""
    paredown.find_plan(
        paredown.StudyFile.read(workshop / "study.yaml").model_copy(update={"trials": 22}), workshop / "finished"
    )
    return workshop / "finished"


# -- what comes out -------------------------------------------------------------------------------------


def test_apply_verifies_and_the_result_is_used(
    finished: Path,
    pico: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """apply --json tells equal bytes and what a fresh process found; the folder is evaluated and writes text."""
    small = tmp_path / "small"
    plan = finished / "best" / "plan.yaml"
    assert call(monkeypatch, "apply", plan, "--model", pico("llama"), "--out", small, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["applied"]["size_bytes"] == told["applied"]["predicted_bytes"] == paredown.validate(plan).size_bytes
    assert told["verified"]["difference"] <= 1e-4
    text = finished.parent / "text.txt"
    assert call(monkeypatch, "eval", small, "--original", pico("llama"), "--data", text, "--tokens", 512) == 0
    assert "95% interval over documents" in capsys.readouterr().out
    assert call(monkeypatch, "generate", small, "fox", "--tokens", 4) == 0
    assert capsys.readouterr().out.startswith("f")


def test_json_is_what_the_file_holds(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """status --json and front.json are the same; in words the verdict is given."""
    assert call(monkeypatch, "status", finished, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((finished / "front.json").read_text())
    assert call(monkeypatch, "status", finished) == 0
    assert "The winner is trial" in (told := capsys.readouterr().out) or "uniform plan wins" in told
    for name in ("report.md", "report.html", "trials.csv", "front.png", "choices.png", "sensitivity.png"):
        assert (finished / name).is_file()


def test_cost_is_said_before_anything_is_done(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run writes nothing, and its bank bytes are those of a bank that was filled."""
    assert call(monkeypatch, "search", workshop / "study.yaml", "--out", tmp_path / "none", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "bank" in told
    assert "expected time" in told
    assert "at the peak" in told
    assert not (tmp_path / "none").exists()


def test_what_a_study_asks_for_in_vain_is_said(
    pico: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kinds that keep their defaults, and choices that no site takes: a line each, before a search and by inspect."""
    study = write_study(tmp_path, pico("llama"))
    asked = study.read_text().partition("space:")[0]
    space = "{choices: {linear: [quantize bits=4, quantize bits=4 group_size=48, keep], ffn: [quantize bits=4]}}"
    study.write_text(f"{asked}space: {space}\n")
    for asking in (("search", study, "--dry-run"), ("inspect", study)):
        assert call(monkeypatch, *asking) == 0
        told = capsys.readouterr().out
        kinds = re.search("^space.choices names linear, ffn; (.*) sites keep their default choices", told, re.MULTILINE)
        assert kinds and set(kinds[1].split(", ")) == {"block", "attention", "embedding"}
        assert "linear sites: none takes 'quantize bits=4 group_size=48' (" in told
        assert "ffn sites: none takes 'quantize bits=4' ('quantize' is for " in told
        assert told.count("none takes") == 2
    study.write_text(asked)
    assert call(monkeypatch, "search", study, "--dry-run") == 0
    assert "default choices" not in capsys.readouterr().out


def test_a_bank_is_shown_and_cleaned(
    finished: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study needs all that its bank holds; what was torn is counted first, and removed when that is asked for."""
    study = shutil.copytree(finished, tmp_path / "study")
    records = sorted((study / "bank").glob("??/*.safetensors"))
    assert call(monkeypatch, "bank", study) == 0
    said = capsys.readouterr().out
    assert f"{len(records):,} records" in said
    assert f"of model {paredown.StudyFile.read(study / 'study.yaml').model}" in said
    assert call(monkeypatch, "bank", study / "bank", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(count["records"] for count in found["methods"].values()) == len(records)
    assert sum(count["bytes"] for count in found["methods"].values()) == sum(path.stat().st_size for path in records)

    assert call(monkeypatch, "bank", study / "bank", "--clean", "--keep", study) == 0
    assert capsys.readouterr().out == "0 bytes can be freed\n"
    records[0].write_bytes(b"torn")
    assert call(monkeypatch, "bank", study, "--clean") == 0
    assert capsys.readouterr().out.startswith("4 bytes can be freed\n")
    assert records[0].is_file()
    assert call(monkeypatch, "bank", study, "--clean", "--yes") == 0
    assert capsys.readouterr().out.startswith("freed 4 bytes\n")
    assert sorted((study / "bank").glob("??/*.safetensors")) == records[1:]

    for arguments, message in (
        ((workshop,), "holds no bank of compressed sites; give a study folder"),
        ((study, "--yes"), "apply only with --clean; add --clean"),
        (
            (study, "--clean", "--keep", workshop),
            "names no records of a bank; give a study folder whose search filled one",
        ),
    ):
        assert call(monkeypatch, "bank", *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_the_number_of_workers_is_no_part_of_the_question(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same study goes on with another number, and its bank needs nothing more."""
    before = {path: path.stat().st_mtime_ns for path in (finished / "bank").glob("??/*")}
    assert call(monkeypatch, "search", finished / "study.yaml", "--out", finished, "--workers", 3, "--trials", 23) == 0
    assert {path: path.stat().st_mtime_ns for path in (finished / "bank").glob("??/*")}.items() >= before.items()


# -- bad input ------------------------------------------------------------------------------------------


def test_a_misspelt_key_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Exit code 2, a line on standard error for each, no traceback."""
    (tmp_path / "wrong.yaml").write_text("model: x\nbudgett: 40%\ntokens: {serach: 4}\n")
    result = subprocess.run(
        command("search", tmp_path / "wrong.yaml"), capture_output=True, text=True, env=environment(), check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert "wrong.yaml:2: budgett: unknown key" in result.stderr
    assert "wrong.yaml:3: tokens.serach: unknown key" in result.stderr
    assert all(line.startswith("paredown: ") for line in result.stderr.splitlines())


def test_an_impossible_budget(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the smallest plan is on disk."""
    assert call(monkeypatch, "search", workshop / "study.yaml", "--budget", "1%", "--out", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("paredown: nothing meets the budget")
    smallest = paredown.validate(tmp_path / "out" / "best" / "plan.yaml")
    assert isinstance(smallest, paredown.PlanFile)
    assert str(f"{smallest.size_bytes:,}") in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "{workshop}/empty.txt"], "is empty; give a file with text"),
        (["--data", "{workshop}/short.txt"], "the text is too short"),
        (["--data", "{workshop}/nothing.txt"], "nothing.txt cannot be read"),
        (["--model", "{workshop}/nothing"], "no model folder"),
        (["--model", "{tmp}/truncated"], "is truncated"),
        (["--model", "{tmp}/nan"], "n"),
        (["--budget", "lots"], "expected a budget such as 45%"),
        (["--target", "vlm"], "unknown target 'vlm'"),
        (["--sampler", "frontiers"], "did you mean 'frontier'"),
        (["--until", "25:00"], "expected a time of day"),
        (["--out", "{tmp}/truncated"], "is not a study folder"),
        (["--trials", "0"], ""),
        (["--no-such-option"], ""),
    ],
)
def test_bad_search(
    flags: list[str],
    message: str,
    workshop: Path,
    tmp_path: Path,
    pico: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is refused with exit code 2 and one line that names the remedy."""
    shutil.copytree(pico("llama"), tmp_path / "truncated")
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    shutil.copytree(pico("llama"), tmp_path / "nan")
    tensors = load_file(tmp_path / "nan" / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    filled = [flag.format(workshop=workshop, tmp=tmp_path) for flag in flags]
    out = [] if "--out" in flags else ["--out", tmp_path / "out"]
    assert call(monkeypatch, "search", workshop / "study.yaml", *filled, *out) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if message:
        assert len([line for line in said.splitlines() if line.startswith("paredown: ")]) == 1
        assert message in said.splitlines()[-1]


def test_budget_above_the_original(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so and keeps everything."""
    out = tmp_path / "out"
    assert call(monkeypatch, "search", workshop / "study.yaml", "--budget", "150%", "--trials", 1, "--out", out) == 0
    assert "everything may be kept" in capsys.readouterr().err
    outcome = paredown.status(out)
    assert outcome.best is not None
    assert outcome.best.loss < 1e-6


def test_plan_for_another_model(
    finished: Path,
    pico: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is refused before anything is written."""
    plan = finished / "best" / "plan.yaml"
    for arguments in (
        ("apply", plan, "--model", pico("mistral"), "--out", tmp_path / "x"),
        ("validate", plan, "--model", pico("gpt2")),
    ):
        assert call(monkeypatch, *arguments) == 2
        assert "the plan was made for LlamaForCausalLM" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_folder_of_others_is_left_alone(
    finished: Path,
    pico: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """apply refuses a folder that it did not write, and changes nothing in it."""
    (tmp_path / "theirs.txt").write_text("mine")
    assert call(monkeypatch, "apply", finished / "best" / "plan.yaml", "--model", pico("llama"), "--out", tmp_path) == 2
    assert "was not written by paredown" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_another_question_in_the_same_folder(
    finished: Path, workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study folder answers one question; another one is sent elsewhere."""
    assert call(monkeypatch, "search", workshop / "study.yaml", "--budget", "50%", "--out", finished) == 2
    assert "holds another study" in capsys.readouterr().err


# -- the functions --------------------------------------------------------------------------------------


def test_public_surface() -> None:
    """`__all__` names what there is; every command but the demo is a function, too."""
    for name in paredown.__all__:
        assert hasattr(paredown, name)
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    functions = {"eval": "evaluate", "search": "find_plan"}
    assert {functions.get(verb, verb) for verb in verbs} - {"demo"} <= set(paredown.__all__)


def test_importing_needs_no_torch(tmp_path: Path) -> None:
    """Help, status and plans are there at once."""
    heavy = "{'torch', 'transformers', 'optuna', 'pandas'}"
    program = f"import paredown, paredown.cli.commands, sys; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
