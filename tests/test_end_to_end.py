"""From a study file to a model that loads, in processes of their own."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import paredown
from paredown.compressors.bank.bank import Bank
from paredown.compressors.original.checkpoint import config_of, load_original, parameters_of
from paredown.deploy.engines.transformers import TorchModel
from paredown.evaluators import latency, timing
from paredown.search.workbench.survey import survey
from paredown.space.choice import parse_choice
from paredown.space.errors import PlanError, StudyError
from paredown.space.plan import Plan
from paredown.space.plan_file import PlanFile
from paredown.space.study_file import StudyFile
from shared import toys
from shared.commands import command, environment

Folder = Callable[[str], Path]
TRIALS = 20
SPACE = {
    "choices": {
        "linear": [
            "quantize bits=2",
            "quantize bits=3 group_size=32",
            "quantize bits=4 group_size=32",
            "quantize bits=8",
            "keep",
        ],
        "embedding": ["quantize bits=8", "keep"],
        "ffn": ["prune-neurons sparsity=0.5 then quantize bits=4"],
    },
    "max_drops": 1,
}
TOKENS = {"calibration": 256, "search": 512, "selection": 256, "held_out": 512, "sequence_length": 32}


def study(model: Path, root: Path, **changes: Any) -> dict[str, Any]:
    data = str(toys.write_text(root / "text.txt", toys.passages(120)))
    question = {
        "model": str(model),
        "data": [data],
        "budget": "35%",
        "trials": TRIALS,
        "patience": "off",
        "latency": "off",
    }
    return {**question, "tokens": TOKENS, "space": SPACE, **changes}


def small_table(question: dict[str, Any], root: Path) -> Path:
    """A latency table, measured in little time."""
    folder, space = survey(StudyFile.model_validate(question))
    parameters = {name: tensor.detach() for name, tensor in parameters_of(load_original(folder)).items()}
    bank, config = Bank(root / "bank", parameters), config_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "REPEATS", 2)
        patch.setattr(timing, "MOST_COPIES", 1)

        def build(plan: Plan) -> Any:
            return TorchModel(latency.deployed(bank, config, space.inventory, plan, torch.bfloat16), causal=True)

        latency.measure_table(space, build, torch.bfloat16, "a test's machine").write(root / "table.json")
    return root / "table.json"


def found(out: Path) -> dict[str, Any]:
    """All that a search found but for what a clock says: trials, front, finalists, intervals, winner, plan."""
    outcome = json.loads((out / "front.json").read_text())
    for record in outcome["records"]:
        del record["seconds"]
    plan = yaml.safe_load((out / "best" / "plan.yaml").read_text())
    clock = ("seconds", "timed", "environment")
    return {key: value for key, value in outcome.items() if key not in clock} | {
        "plan": (plan["choices"], plan["size_bytes"])
    }


def trials_of(out: Path) -> dict[int, tuple[str, str]]:
    """Finished trials by number: when they ended, and what was recorded."""
    with sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True, timeout=30) as connection:
        rows = connection.execute(
            "select number, datetime_complete, value_json from trials join trial_user_attributes using (trial_id) "
            "where state = 'COMPLETE'"
        )
        return {number: (ended, record) for number, ended, record in rows}


def cut_off(command: list[str], out: Path, trials: int, number: int) -> tuple[int, str]:
    """Exit code and standard error of a search that gets a signal once the given number of trials is finished."""
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            with suppress(sqlite3.Error):  # before its tables are made
                if len(trials_of(out)) >= trials:
                    break
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    return process.returncode, said


def test_an_interrupted_and_killed_search_ends_as_one_that_ran_through(pico: Folder, tmp_path: Path) -> None:
    """With a trial count and a stored latency table.

    Ctrl+C saves and exits with 130, a kill saves too; the same command goes on, loses no finished trial and repeats
    none.
    """
    question = study(pico("llama"), tmp_path)
    question["latency"] = str(small_table(question, tmp_path))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(question))
    paredown.find_plan(question, tmp_path / "through")
    through, out = found(tmp_path / "through"), tmp_path / "out"
    same = command("search", tmp_path / "study.yaml", "--out", out)

    code, said = cut_off(same, out, 3, signal.SIGINT)
    assert code == 130, said
    assert "Traceback" not in said
    assert f"the best plan so far is {out / 'best' / 'plan.yaml'}" in said
    assert f"to resume: paredown search {tmp_path / 'study.yaml'} --out {out}" in said
    assert paredown.validate(out / "best" / "plan.yaml")
    assert paredown.status(out).state == "stopped"
    first = trials_of(out)

    code, said = cut_off(same, out, len(first) + 2, signal.SIGKILL)
    assert code == -signal.SIGKILL, said
    second = trials_of(out)
    assert first.items() <= second.items()
    assert len(second) < len(through["records"])

    paredown.find_plan(question, out)
    assert second.items() <= trials_of(out).items()
    assert found(out) == through
    numbers = [record["number"] for record in through["records"]]
    assert numbers == sorted(set(numbers))
    assert TRIALS <= through["spent"] < TRIALS + 1  # in whole trials: some plans are stopped early
    assert len(numbers) <= TRIALS
    assert {record["origin"] for record in through["records"]} == {"uniform", "solver", "frontier"}
    assert all(record["decode_ms"] is not None for record in through["records"])


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_other_families_go_all_the_way(pico: Folder, tmp_path: Path, name: str) -> None:
    """Search, apply, verification in a fresh process and load.

    The result is within the budget, and nearer to the original than its uniform rival or that rival itself.
    """
    outcome = paredown.find_plan(
        study(pico(name), tmp_path, trials=6, tokens={**TOKENS, "sequence_length": 48}), tmp_path / "study"
    )
    assert outcome.question.metric == ("kl" if name == "gpt2" else "relative-error")
    assert outcome.best and outcome.best.size_bytes <= outcome.question.budget_bytes
    applied, verified = paredown.apply(tmp_path / "study" / "best" / "plan.yaml", pico(name), tmp_path / "small")
    assert applied.size_bytes == outcome.best.size_bytes
    assert verified and verified.difference < 1e-4
    assert (verified.incremental_difference is None) == (name == "bert")
    model = paredown.load(tmp_path / "small", torch.float32)
    inputs = torch.randint(2, 128, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=inputs).logits).all()


@pytest.mark.parametrize(
    ("name", "site", "reason"),
    [
        (
            "gpt2",
            "transformer.h.0.mlp.c_fc",
            "transformers cannot load a quantized Conv1D; keep transformer.h.0.mlp.c_fc or use target paredown",
        ),
        (
            "llama",
            "model.embed_tokens",
            "transformers cannot load a quantized Embedding; keep model.embed_tokens or use target paredown",
        ),
        ("bert", "bert.embeddings.word_embeddings", "transformers cannot load a quantized Embedding"),
    ],
)
def test_what_transformers_cannot_carry_is_refused_with_the_reason(
    pico: Folder, tmp_path: Path, name: str, site: str, reason: str
) -> None:
    """By a study that asks for it, and by apply, before anything is written."""
    space = {"overrides": [{"match": site, "choices": ["quantize bits=8"]}]}
    asked = StudyFile.model_validate(study(pico(name), tmp_path, target="transformers", space=space))
    with pytest.raises(StudyError, match=reason):
        survey(asked)
    _, space_of = survey(asked.model_copy(update={"target": "paredown"}))
    inventory = space_of.inventory
    plan = Plan.of(inventory, {site: parse_choice("quantize bits=8")})
    reference = {
        "name": name, "architecture": inventory.architecture, "config_sha256": "",
        "shapes_sha256": inventory.shapes_sha256(),
    }  # fmt: skip
    file = PlanFile.model_validate(
        {
            "base_model": reference,
            "target": "transformers",
            "choices": {site: {"method": "quantize", "bits": 8}},
            "size_bytes": plan.size_bytes(inventory),
        }
    )
    with pytest.raises(PlanError, match=reason):
        paredown.apply(file, pico(name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_with_target_transformers_gpt2_has_blocks_to_drop_and_nothing_to_quantize(pico: Folder, tmp_path: Path) -> None:
    """What cannot be carried is in no option, so that no plan of a search is refused at its end."""
    study_file = StudyFile.model_validate(study(pico("gpt2"), tmp_path, target="transformers", space={}))
    _, space = survey(study_file)
    offered = {choice.method for options in space.options.values() for choice in options}
    assert "quantize" not in offered
    assert "drop" in offered
