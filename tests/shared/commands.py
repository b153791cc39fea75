"""What tests of the command line share: a folder to search in, and commands in this process or in one of their own."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from paredown.cli import commands as cli
from paredown.entry import exit_code

WORDS = (
    "the",
    "fox",
    "old",
    "tree",
    "saw",
    "a",
    "river",
    "and",
    "ran",
    "home",
    "with",
    "blue",
    "stone",
    "where",
    "nine",
    "birds",
)
TOKENS = "tokens: {calibration: 512, search: 512, selection: 512, held_out: 1024, sequence_length: 48}"
SPACE = """space:
  choices:
    linear:
    - quantize bits=2
    - quantize bits=3 group_size=32 algorithm=gptq
    - quantize bits=4 algorithm=gptq
    - quantize bits=8
    - keep
    embedding: [quantize bits=4, quantize bits=8, keep]
    ffn: [prune-neurons sparsity=0.5 algorithm=reconstruct then quantize bits=4 algorithm=gptq]
  max_drops: 1"""


def write_text(path: Path) -> Path:
    """A text of many short documents."""
    draw = random.Random(0)
    path.write_text("\n\n".join(" ".join(draw.choices(WORDS, k=12)) for _ in range(1500)))
    return path


def write_study(folder: Path, model: Path) -> Path:
    """A study file of a pico model, with its text beside it."""
    text = write_text(folder / "text.txt")
    path = folder / "study.yaml"
    path.write_text(
        f"model: {model}\ndata: {text}\nbudget: 40%\ntrials: 16\npatience: 'off'\nlatency: 'off'\n{TOKENS}\n{SPACE}\n"
    )
    return path


def command(*arguments: object) -> list[str]:
    """The command for a process of its own."""
    return [sys.executable, "-m", "paredown", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Environment of the started process."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """What the command exits with, run in this process."""
    monkeypatch.setattr(sys, "argv", ["paredown", *map(str, arguments)])
    return exit_code(cli.app)
