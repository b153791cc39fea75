"""The model, the texts and the bank of a study, ready to measure plans."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from paredown.compressors.assemble import reduced_config
from paredown.compressors.bank import Bank
from paredown.compressors.calibration import calibration_key, collect
from paredown.compressors.checkpoint import config_of, load_original, parameters_of, resolve, weights_sha256
from paredown.compressors.planned import PlannedModel
from paredown.compressors.sites import inventory_of
from paredown.evaluators.latency import LatencyTable, deployed, deployed_plan, measure_table
from paredown.evaluators.quality import Quality, Teacher
from paredown.evaluators.sequences import Sequences, sequence_sets
from paredown.evaluators.sources import document_sets
from paredown.space.choice import KEEP
from paredown.space.errors import CheckpointError, PlanError, StudyError
from paredown.space.plan import Plan
from paredown.space.space import Space
from paredown.space.study_file import StudyFile
from paredown.space.target import targets


def survey(question: StudyFile) -> tuple[Path, Space]:
    """The model's folder and the space of a study; reads headers only.

    Raises:
        CheckpointError: If the model is missing or incomplete.
        StudyError: If the space cannot be built.
    """
    folder = resolve(question.model, question.revision)
    target = targets[question.target]
    config = config_of(folder)
    return folder, _droppable(Space.build(inventory_of(folder, config, ties=target.ties), target, question.space), config)


def _droppable(space: Space, config: Any) -> Space:
    """The space without drops, where a model's blocks are not what they were at another place."""
    blocks = [site for site in space.inventory.parents if site.kind == "block" and space.options[site.name]]
    try:
        for site in blocks[:1] + blocks[-1:] if space.max_drops else ():
            reduced_config(config, space.inventory, (site.block,) if site.block is not None else ())
    except PlanError:
        return replace(space, options={**space.options, **{site.name: () for site in blocks}})
    return space


class Workbench:
    """Measures plans of one study.

    Args:
        question: The study.
        bank_folder: Where compressed sites lie.
    """

    def __init__(self, question: StudyFile, bank_folder: Path) -> None:
        self.question = question
        self.folder, self.space = survey(question)
        self.config = config_of(self.folder)
        sets = document_sets(question.data)
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{self.folder} has no tokenizer ({str(error).splitlines()[0]}); copy the original's beside it") from None
        longest = getattr(self.config, "max_position_embeddings", None) or getattr(self.config, "n_positions", None) or 10**9
        self.sequences: dict[str, Sequences] = sequence_sets(sets, tokenizer, question.tokens, longest, question.seed)
        largest = max(int(part.tokens.max()) for part in self.sequences.values())
        if largest >= self.config.vocab_size:
            raise StudyError(
                f"the tokenizer gives token {largest}, the model has {self.config.vocab_size}; give the tokenizer of this model"
            )
        self.model: PreTrainedModel = load_original(self.folder, self.config)
        parameters = {name: tensor.detach() for name, tensor in parameters_of(self.model).items()}
        part = self.sequences["calibration"]
        key = calibration_key(part.tokens, part.mask, weights_sha256(self.folder))
        self.statistics = collect(self.model, self.space.inventory, part.tokens, part.mask, bank_folder / "statistics" / key)
        self.bank = Bank(bank_folder, dict(parameters), self.statistics, key)
        self.planned = PlannedModel(self.model, self.space.inventory, self.bank)
        self._teachers: dict[str, Teacher] = {}

    def teacher(self, name: str) -> Teacher:
        """The original's predictions on a set, made when first asked for."""
        if name not in self._teachers:
            plan = self.planned.plan
            self.planned.swap(Plan())
            self._teachers[name] = Teacher(self.model, self.sequences[name], causal=self.space.inventory.causal)
            self.planned.swap(plan)
        return self._teachers[name]

    def measure(self, plan: Plan, name: str = "search") -> Quality:
        """A plan's quality on a set.

        Raises:
            EvaluationError: If a prediction is not finite.
        """
        teacher = self.teacher(name)
        self.planned.swap(plan)
        return teacher.measure(self.model)

    def latency_table(self, path: Path) -> LatencyTable:
        """The table of a file, measured now if there is none."""
        if path.is_file():
            return LatencyTable.read(path)
        table = measure_table(self.space, self.deployed, self.deployed_dtype, _cpu_name())
        table.write(path)
        return table

    def deployed(self, plan: Plan) -> PreTrainedModel:
        """The model that the target runs under a plan."""
        inventory = self.space.inventory
        plan = deployed_plan(plan, inventory, self.space.target)
        return deployed(self.bank, self.config, inventory, plan, self.deployed_dtype)

    @property
    def deployed_dtype(self) -> torch.dtype:
        """Of the target's activations: bfloat16 for paredown's kernels, else as the original is stored."""
        stored: torch.dtype = self.config.dtype or torch.float32
        return torch.bfloat16 if self.space.target.name == "paredown" else stored

    def fill_bank(self, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Compresses every site under every option that is not in the bank yet."""
        pairs = [(s, c) for s in self.space.inventory.sites for c in self.space.options[s.name] if c != KEEP and s.kind != "block"]
        for done, (site, choice) in enumerate(pairs):
            if not self.bank.holds(site, choice):
                self.bank.tensors(site, choice)
            progress(done + 1, len(pairs))


def environment() -> dict[str, str | int]:
    """Versions and machine, for the record."""
    import platform
    from importlib.metadata import version

    names = ("paredown", "torch", "transformers", "optuna", "numpy", "scipy")
    return {
        **{name: version(name) for name in names},
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()
