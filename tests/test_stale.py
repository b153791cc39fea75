"""Studies whose model, texts or libraries changed since their start, and banks damaged since they were scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import paredown
from paredown.cli.progress import Silent
from paredown.compressors.original.find_sites import inventory_of
from paredown.deploy.formats import formats
from paredown.deploy.scored import check_digests
from paredown.search.outcome.outcome import Outcome
from paredown.space.errors import StudyError, VerificationError
from paredown.space.plan_file import PlanFile
from shared import toys
from tests.test_damage import TRIES, flip_codes

Folder = Callable[[str], Path]
GPTQ = "quantize bits={} group_size=32 algorithm=gptq"
SPACE = {
    "choices": {
        "linear": [GPTQ.format(3), GPTQ.format(4), "quantize bits=8"],
        "embedding": ["quantize bits=8", "keep"],
        "block": [],
        "attention": [],
        "ffn": [],
    }
}
TOKENS = {"calibration": 256, "search": 256, "selection": 256, "held_out": 256, "sequence_length": 32}


class Said(Silent):
    """Remembers what a person would be told; draws no reports."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def publish(self, outcome: Outcome, folder: Path) -> None:
        """Nothing."""


class Study:
    """A finished search in a folder of its own, with a model that may be edited."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model, self.out = root, root / "model", root / "study"
        shutil.copytree(model, self.model)
        data = str(toys.write_text(root / "text.txt", toys.passages(60)))
        self.question: dict[str, Any] = {
            "model": str(self.model), "data": [data], "budget": "32%", "trials": 3, "latency": "off",
            "tokens": TOKENS, "space": SPACE,
        }  # fmt: skip
        self.outcome, _ = self.search()

    def search(self, **options: Any) -> tuple[Outcome, list[str]]:
        said = Said()
        return paredown.find_plan(self.question, self.out, progress=said, workers=1, **options), said.lines

    def edit_config(self, **changes: Any) -> None:
        path = self.model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def finished(pico: Folder, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("finished"), pico("llama"))


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Iterator[Study]:
    """A copy of the finished study in its place, put back afterwards."""
    kept = tmp_path / "kept"
    shutil.copytree(finished.root, kept)
    yield finished
    shutil.rmtree(finished.root)
    shutil.copytree(kept, finished.root)


def losses(outcome: Outcome) -> list[tuple[int, float]]:
    return [(trial.number, trial.loss) for trial in outcome.trials.measured]


def test_a_changed_configuration_is_named_and_refused(study: Study) -> None:
    """Also a changed library and changed weights, lost and old inputs.

    Nothing in the folder changes but by --fresh or --adopt.
    """
    before = {path: path.read_bytes() for path in study.out.rglob("*") if path.is_file() and "bank" not in path.parts}
    (environment,) = json.loads((study.out / "environment.json").read_text())
    assert environment["since"]
    refused = (
        r"^the inputs of \S+ changed \({}\); add --fresh to move that folder aside and start over, or --adopt to resume"
    )
    study.edit_config(rms_norm_eps=1e-5)
    with pytest.raises(StudyError, match=refused.format("rms_norm_eps 1e-06 -> 1e-05")):
        study.search()
    study.edit_config(rms_norm_eps=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        from paredown.compressors.original import origin

        known = origin.version
        patch.setattr(origin, "version", lambda name: "9.9.9" if name == "torch" else known(name))
        with pytest.raises(StudyError, match=refused.format(r"torch \S+ -> 9\.9\.9")):
            study.search()
    weights = load_file(study.model / "model.safetensors")
    original = (study.model / "model.safetensors").read_bytes()
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * 1.5},
        study.model / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(StudyError, match=refused.format(r"weights \S+ -> \S+")):
        study.search()
    inputs = study.out / "inputs.json"
    for content in (None, b'{"weights": "0"}', b"[", before[inputs][:-9]):
        inputs.unlink()
        if content:
            inputs.write_bytes(content)
        with pytest.raises(StudyError, match=r"changed \(inputs\.json is (missing|damaged or of an older version)"):
            study.search()
        inputs.write_bytes(before[inputs])
    assert {
        path: path.read_bytes() for path in study.out.rglob("*") if path.is_file() and "bank" not in path.parts
    } == before
    (study.model / "model.safetensors").write_bytes(original)
    assert losses(study.search()[0]) == losses(study.outcome)


def test_every_drawn_change_of_the_configuration_is_noticed(study: Study) -> None:
    """The message names the key with both values."""
    config = json.loads((study.model / "config.json").read_text())
    for number, draw in enumerate(np.random.default_rng(0).integers(3, size=TRIES), 3000):
        key, value = (("rms_norm_eps", number / 8), ("max_position_embeddings", number), ("rope_theta", number / 8))[
            draw
        ]
        rope = {"rope_parameters": config["rope_parameters"] | {"rope_theta": value}}
        study.edit_config(**(rope if key == "rope_theta" else {key: value}))
        with pytest.raises(StudyError, match=rf"changed \((rope_parameters\.)?{key} \S+ -> {value}\)"):
            study.search()
        study.edit_config(**config)


def test_adopted_changes_are_recorded_and_the_trials_stay(study: Study) -> None:
    """More trials go on from there; the next run asks nothing."""
    study.edit_config(rms_norm_eps=1e-5)
    outcome, _ = study.search(adopt=True)
    assert losses(outcome) == losses(study.outcome)
    study.question["trials"] = 4
    try:
        more, _ = study.search()
    finally:
        study.question["trials"] = 3
    assert losses(more)[: len(outcome.trials.measured)] == losses(outcome)
    assert len(more.trials.measured) > len(outcome.trials.measured)
    (adopted,) = json.loads((study.out / "inputs.json").read_text())["adopted"]
    assert adopted["changes"] == ["rms_norm_eps 1e-06 -> 1e-05"]


def test_a_fresh_start_moves_the_old_study_aside(study: Study) -> None:
    """Whole, under a free name; what is measured then is what a new folder would find.

    The same command goes on afterwards.
    """
    before = {
        path.relative_to(study.out): path.read_bytes()
        for path in study.out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    (study.root / "study.before-1").mkdir()
    study.edit_config(rms_norm_eps=0.3)
    outcome, said = study.search(fresh=True)
    aside = study.root / "study.before-2"
    assert said[0] == f"the previous study was moved to {aside}"
    moved = {
        path.relative_to(aside): path.read_bytes()
        for path in aside.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert before.items() <= moved.items()
    assert losses(outcome) != losses(study.outcome)
    assert study.search(fresh=True) == (outcome, [])
    with pytest.raises(StudyError, match="--fresh starts over and --adopt resumes; give only one of them"):
        study.search(fresh=True, adopt=True)


def records(study: Study) -> list[Path]:
    """Records of the winner's calibrated sites, as its plan has them."""
    found = ((path, path.read_bytes()[:4096]) for path in (study.out / "bank").glob("??/*.safetensors"))
    return sorted(path for path, header in found if b"in order" in header or b"algorithm=gptq" in header)


def test_flipped_codes_are_noticed_by_apply_and_verify(study: Study) -> None:
    """In each record that is read: it is said and made again, and what is written is what was scored."""
    plan = study.out / "best" / "plan.yaml"
    scored = PlanFile.read(plan).records
    assert scored is not None
    assert len(scored.sha256) == len(PlanFile.read(plan).choices)
    said: list[str] = []
    for seed, check in enumerate((False, True)):
        for path in records(study):
            flip_codes(path, seed)
        if check:
            paredown.verify(study.root / "out", study.model, bank=study.out / "bank", say=said.append)
        else:
            applied, _ = paredown.apply(plan, study.model, study.root / "out", check=False, say=said.append)
            assert applied.differences == ()
            assert PlanFile.read(study.root / "out" / "plan.yaml").records == scored
        assert any("is damaged: it is recomputed" in line for line in said)
        said.clear()


def test_flipped_codes_in_a_written_model_are_noticed_by_verify(study: Study) -> None:
    """20 of 20, before the model is loaded."""
    out, plan = study.root / "out", PlanFile.read(study.out / "best" / "plan.yaml")
    paredown.apply(plan, study.model, out, check=False, bank=study.out / "bank")
    inventory = inventory_of(study.model)
    records = PlanFile.read(out / "plan.yaml").records
    assert records is not None
    file = out / "model.paredown.safetensors"
    data = file.read_bytes()
    for seed in range(TRIES):
        check_digests(out, inventory, plan.plan_for(inventory), formats["paredown"], records)
        flip_codes(file, seed)
        with pytest.raises(
            VerificationError, match=r"out: the tensors of \S+ are not those that were written; apply the plan again"
        ):
            check_digests(out, inventory, plan.plan_for(inventory), formats["paredown"], records)
        if seed == 0:
            with pytest.raises(VerificationError, match="are not those that were written"):
                paredown.verify(out, study.model, bank=study.out / "bank")
        file.unlink()
        file.write_bytes(data)


def test_a_record_that_was_exchanged_is_refused(study: Study, tmp_path: Path) -> None:
    """One with a sound digest, but not what was scored: one line, and nothing is written.

    Other texts or weights are reasons to differ, and they are said.
    """
    plan = PlanFile.read(study.out / "best" / "plan.yaml")
    assert plan.records is not None
    name = next(iter(plan.records.sha256))
    other = plan.records.model_copy(update={"sha256": {**plan.records.sha256, name: "0" * 16}})
    with pytest.raises(
        VerificationError,
        match="is not what was scored: its tensors have digest .*, the plan says 0000000000000000; remove",
    ):
        paredown.apply(
            plan.model_copy(update={"records": other}),
            study.model,
            tmp_path / "out",
            check=False,
            bank=study.out / "bank",
        )
    assert not (tmp_path / "out").exists()
    texts = str(toys.write_text(tmp_path / "other.txt", toys.passages(50, seed=7)))
    applied, _ = paredown.apply(plan, study.model, tmp_path / "out", check=False, data=texts)
    assert [line.partition(":")[0] for line in applied.differences] == [
        "other calibration texts (other files, another Python)"
    ]
    weights = load_file(study.model / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    save_file({**weights, key: weights[key] * 1.5}, study.model / "model.safetensors", {"format": "pt"})
    applied, _ = paredown.apply(plan, study.model, tmp_path / "out", check=False)
    assert applied.differences[0].startswith("the model has other weights (for example a fine-tune): ")


def test_a_search_notices_damage_in_its_bank(study: Study) -> None:
    """Flipped records, NaN in statistics, poisoned facts, spoilt lists: each is named; the search finds the same."""
    facts = next((study.out / "bank" / "statistics").glob("*/sensitivity.json"))
    shutil.rmtree(study.out / "best")
    for name in ("front.json", "study.db", "sensitivity.json", "bank.json"):
        (study.out / name).unlink()
    for path in records(study):
        flip_codes(path, 1)
    file = next(facts.parent.glob("*.safetensors"))
    tensors = load_file(file)
    tensors["second_moment"].diagonal()[3] = float("nan")
    save_file(tensors, file)
    poisoned = json.loads(facts.read_text())
    poisoned["facts"] = dict.fromkeys(poisoned["facts"], 1e-9)
    facts.write_text(json.dumps(poisoned))
    (study.out / "bank.json").write_text("[3")
    outcome, said = study.search()
    assert losses(outcome) == losses(study.outcome)
    assert outcome.decision.winner == study.outcome.decision.winner
    for what in ("the record of", "what it held is measured again"):
        assert any(what in line for line in said), said
