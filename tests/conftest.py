"""What all tests share."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test touches the network; read when the hub's library is imported
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from paredown.compressors.original.find_sites import inventory_of
from paredown.space.site import Inventory
from shared import pico as families

# No deadline: a busy machine is slow. The same examples every time: a red test stays red.
settings.register_profile("paredown", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("paredown")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a pico model by name (`pico.PICO_NAMES`), saved once a session; read it, never write to it."""
    root = tmp_path_factory.mktemp("pico")

    @cache
    def folder(name: str) -> Path:
        return families.save(name, root / name)

    return folder


@pytest.fixture(scope="session")
def inventory(pico: Callable[[str], Path]) -> Callable[[str], Inventory]:
    """The inventory of a pico model by name."""
    return cache(lambda name: inventory_of(pico(name)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole studies, which lie at the top, come first: two processes that share the files end together."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
