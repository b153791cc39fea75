"""A budget is never overrun: in predicted bytes, and in bytes on disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.importance import statistics_for
from paredown.compressors.original.checkpoint import config_of, config_sha256, load_original, parameters_of, skeleton
from paredown.compressors.original.find_sites import inventory_of, walk
from paredown.deploy.apply import apply_plan
from paredown.search.solver.solver import Solver
from paredown.search.trials.uniform import uniform_plans
from paredown.space.budget import Budget
from paredown.space.errors import BudgetError
from paredown.space.plan_file import BaseModelReference, PlanFile, choices_of
from paredown.space.space import Space
from paredown.space.targets.target import targets
from paredown.space.tensors import total_bytes
from shared import ROOT, toys

DEMO = ROOT / "studies/models/demo"


def demo_config() -> LlamaConfig:
    """The demo model's config if it lies beside the tests, else a config of its shapes."""
    if (DEMO / "config.json").is_file():
        config: LlamaConfig = config_of(DEMO)
        return config
    heads = {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaConfig(
        **heads,
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=512,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )


@cache
def demo_space(target: str) -> Space:
    return Space.build(walk(skeleton(demo_config()), {}, "bfloat16"), targets[target])


@cache
def demo_solver(target: str) -> Solver:
    """One that stops at a tenth above the least loss: how good a plan is says nothing of its bytes."""
    return Solver(demo_space(target), gap=0.1)


def random_budget(generator: np.random.Generator, space: Space) -> str:
    """In every unit that a person may write, from far below what can be met to beyond the original."""
    share = float(np.exp(generator.uniform(np.log(0.05), np.log(1.2))))
    texts = [
        f"{100 * share:.3f}%",
        f"{8 * share * space.inventory.original_bytes / space.inventory.parameters:.4f}bpw",
        f"{share * space.inventory.original_bytes / 1e6:.6f}MB",
        f"{int(share * space.inventory.original_bytes)}B",
    ]
    return texts[int(generator.integers(len(texts)))]


def test_five_hundred_random_budgets_are_never_overrun() -> None:
    """A budget below the smallest plan is refused, any other is met; each twenty-five have other losses.

    A uniform plan that is said to fit does fit.
    """
    generator = np.random.default_rng(0)
    met = 0
    for turn in range(500):
        target = "paredown" if turn % 2 else "transformers"
        space, solver, smallest = demo_space(target), demo_solver(target), smallest_bytes(target)
        inventory = space.inventory
        losses = demo_losses(target, turn // 25)
        budget = inventory.budget_bytes(Budget.parse(random_budget(generator, space)))
        if budget < smallest:
            if turn % 20 == 0:
                with pytest.raises(BudgetError, match=f"the smallest plan of the space has {smallest:,}"):
                    solver.solve(losses, budget)
            continue
        plan = solver.solve(losses, budget)
        assert total_bytes(plan.layout(inventory)) <= budget
        assert space.allows(plan)
        met += 1
    assert met > 250


@cache
def smallest_bytes(target: str) -> int:
    return demo_solver(target).smallest().size_bytes(demo_space(target).inventory)


@cache
def demo_losses(target: str, seed: int) -> toys.Losses:
    return toys.losses_of(demo_space(target), seed)


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the demo model's shapes with random weights; used for bytes only."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("demo")
    LlamaForCausalLM(demo_config()).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bank(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder, model = tmp_path_factory.mktemp("bank"), load_original(demo_model)
    tokens = torch.randint(0, 512, (1, 64), generator=torch.Generator().manual_seed(0))
    needs = frozenset(
        need for options in demo_space("paredown").options.values() for choice in options for need in choice.needs
    )
    statistics = statistics_for(
        model, inventory_of(demo_model), tokens, torch.ones_like(tokens), folder / "statistics", needs
    )
    return Bank(folder, dict(parameters_of(model)), statistics, "test")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_twelve_of_them_written_are_equal_to_the_byte(demo_model: Path, bank: Bank, tmp_path: Path) -> None:
    """The tensors in the files are those that were predicted, and no more than was asked for."""
    for target, shares in (("paredown", np.geomspace(0.13, 1.0, 8)), ("transformers", np.geomspace(0.4, 1.0, 4))):
        inventory = inventory_of(demo_model)
        assert inventory.original_layout() == demo_space(target).inventory.original_layout()
        reference = BaseModelReference(
            name=str(demo_model),
            architecture=inventory.architecture,
            config_sha256=config_sha256(demo_model),
            shapes_sha256=inventory.shapes_sha256(),
        )
        for turn, share in enumerate(shares):
            budget = max(int(share * inventory.original_bytes), smallest_bytes(target))
            plan = demo_solver(target).solve(demo_losses(target, 0), budget)
            size = plan.size_bytes(inventory)
            file = PlanFile(base_model=reference, target=target, choices=choices_of(plan), size_bytes=size)
            applied = apply_plan(file, demo_model, tmp_path / f"{target}-{turn}", tensors_of=bank.tensors)
            on_disk = sum(p.stat().st_size for p in applied.folder.glob("*.safetensors")) - applied.header_bytes
            assert on_disk == applied.size_bytes == size <= budget


@pytest.mark.parametrize("target", ["paredown", "transformers"])
def test_uniform_plans_that_fit_fit(target: str) -> None:
    space = demo_space(target)
    generator = np.random.default_rng(1)
    for _ in range(10):
        budget = int(generator.uniform(0.1, 1.0) * space.inventory.original_bytes)
        for plan in uniform_plans(space, budget):
            assert plan.size_bytes == total_bytes(plan.plan.layout(space.inventory))
