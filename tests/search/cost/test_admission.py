"""What a search refuses, a dry run and an inspection refuse before it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared import commands

Folder = Callable[[str], Path]


def without_tokenizer(model: Path, copy: Path) -> Path:
    """A copy of a model without its tokenizer."""
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*", "vocab*", "added*"))
    return copy


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data: TMP/missing.txt", "missing.txt cannot be read"),
        ("data: TMP/short.txt", "calibration"),
        ("latency: TMP/none.json", "no latency table"),
        ("memory: 1KB\nlatency: measure", "set latency: off"),
        ("sampler: fronteer", "frontier"),
        ("budget: 1%", "smallest"),
        ("timeout: 0.1", "too short to begin"),
        ("model: TMP/dumb", "has no tokenizer"),
        ("model: BERT\nlatency: measure\nmax_decode_ms: 1", "decodes no tokens"),
        (
            "model: BERT\nspace: {choices: {linear: [cluster clusters=16 weighting=fisher]}}",
            "an encoder has no next-token loss",
        ),
    ],
)
def test_a_dry_run_refuses_what_a_search_refuses(
    pico: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    """In the same words, with the same exit code; nothing is written."""
    study = commands.write_study(tmp_path, pico("llama"))
    (tmp_path / "short.txt").write_text("Once upon a time.\n")
    without_tokenizer(pico("llama"), tmp_path / "dumb")
    changed = line.replace("TMP", str(tmp_path)).replace("BERT", str(pico("bert")))
    names = re.findall(r"^(\w+):", changed, re.MULTILINE)
    kept, _, space = study.read_text().partition("space:")
    lines = [old for old in kept.splitlines() if old.partition(":")[0] not in names]
    study.write_text("\n".join([*lines, changed, *([] if "space" in names else [f"space:{space}"])]) + "\n")
    said = []
    for flags in (("--dry-run",), ()):
        code = commands.call(monkeypatch, "search", study, "--out", tmp_path / "out", *flags)
        assert not flags or not (tmp_path / "out").exists()
        line = re.sub(r"it was saved to \S+; ", "", capsys.readouterr().err.splitlines()[-1])
        said.append((code, re.sub(r"\d+", "N", line)))
    assert said[0] == said[1]
    assert message in said[0][1]
    assert said[0][0] in (2, 3)
