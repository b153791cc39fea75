"""Distributions with extensions, put where Python finds them as it finds what pip installs."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

SAMPLE = Path(__file__).parent


def install(folder: Path, version: str = "") -> Path:
    """Installs the sample distribution in a folder, which is returned; as another version if one is given."""
    project = tomllib.loads((SAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copytree(SAMPLE / "paredown_sample", folder / "paredown_sample")
    offer(folder, project["name"], version or project["version"], project["entry-points"])
    return folder


def offer(folder: Path, name: str, version: str, groups: dict[str, dict[str, str]]) -> None:
    """Writes what pip writes beside the modules of a distribution: its name, version and entry points."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
