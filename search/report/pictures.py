"""A study's pictures, as PNG files."""

from __future__ import annotations

import gc
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paredown.evaluators.metrics import metrics, usual_metric
from paredown.search.outcome.outcome import Outcome
from paredown.search.pareto import pareto_front
from paredown.search.trial import Trial
from paredown.space.choice import KEEP, Choice
from paredown.space.layouts import choice_members, site_layout
from paredown.space.plan import Plan
from paredown.space.site import Inventory, Site
from paredown.space.system.files import write_atomically
from paredown.space.tensors import total_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

FRONT, CHOICES, SENSITIVITY = "front.png", "choices.png", "sensitivity.png"

BLUE, ORANGE, RED, GRAY, INK = "#2a6fbb", "#e08a1e", "#c0392b", "#9aa3ad", "#26323d"
LOWEST = 1e-7
"""Least loss that is drawn; a logarithmic axis has no zero."""

MOST_LETTERS = 40
"""Most characters of a model's name in a title."""

ROWS = 64
"""Most rows of a map that get cell labels; larger maps have thinner rows in a figure of the same size."""


def draw_front(outcome: Outcome, path: Path) -> None:
    """Draws all trials by size and loss on the search set, with the budget, the uniform plans and the winner."""
    figure = new_figure(9.5, 5.8)
    axes = figure.add_subplot()
    question, measured = outcome.question, outcome.trials.measured
    unit, name = byte_unit(max(question.original_bytes, 1))

    def place(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        return [r.size_bytes / unit for r in trials], [max(r.loss, LOWEST) for r in trials]

    def colours(trials: Sequence[Trial]) -> dict[str, Any]:
        return (
            {"c": [float(r.times.decode_ms or 0) for r in trials], "norm": norm, "cmap": "viridis_r"}
            if norm
            else {"color": BLUE}
        )

    uniform = [r for r in measured if r.origin == "uniform"]
    others = [r for r in measured if r.origin != "uniform"]
    norm = time_scale(measured)
    bars = [r.half_width if np.isfinite(r.half_width) else 0.0 for r in measured]
    lower = [min(bar, 0.999 * max(r.loss, LOWEST)) for bar, r in zip(bars, measured, strict=True)]
    axes.errorbar(*place(measured), yerr=[lower, bars], fmt="none", ecolor=GRAY, elinewidth=0.8, alpha=0.7, zorder=1)
    dots = axes.scatter(*place(others), **colours(others), s=26, linewidths=0, zorder=3, label="searched plans")
    inside = colours(uniform) if norm else {"facecolors": "white"}
    axes.scatter(
        *place(uniform), **inside, s=46, marker="s", edgecolors=ORANGE, linewidths=1.5, zorder=3, label="uniform plans"
    )
    if norm:
        figure.colorbar(dots, ax=axes, label="decoding, predicted [ms/token]", pad=0.02)
    line: dict[str, Any] = {"color": BLUE, "linewidth": 1.3, "alpha": 0.6, "zorder": 2}
    axes.step(*place(size_front(measured)), where="post", label="front of size and loss", **line)
    axes.axvline(
        question.budget_bytes / unit, color=RED, linestyle="--", linewidth=1.2, label=f"budget {question.budget}"
    )
    shown = [r.size_bytes for r in measured]
    if shown and question.original_bytes < 1.4 * max(shown):
        axes.axvline(question.original_bytes / unit, color=INK, linestyle=":", linewidth=1.2, label="original")
    if best := outcome.best:
        label = f"{'winner' if outcome.decision.winner is not None else 'best so far'} (trial {best.number})"
        axes.scatter(
            *place([best]), s=230, marker="*", color=RED, edgecolors="white", linewidths=0.9, zorder=5, label=label
        )
    axes.set_yscale("log")
    axes.set_xlabel(
        f"size of the written tensors [{name}]; the original has {question.original_bytes / unit:,.3g} {name}"
    )
    axes.set_ylabel(metrics[question.metric].axis)
    title = f"{shortened(Path(question.model).name)}, target {question.target}: "
    title += f"{len(measured)} measured plans, search set, bars: 95 % interval"
    axes.set_title(title, loc="left", parse_math=False)  # a model's name may contain dollar signs
    finish(figure, axes, path)


def shortened(name: str) -> str:
    """The name on one line, cut to `MOST_LETTERS` characters."""
    line = " ".join(name.split())
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 1]}…"


def size_front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials on the Pareto front of size and loss alone, smallest first."""
    found = pareto_front([(trial.size_bytes, trial.loss) for trial in trials])
    return sorted((trials[i] for i in found), key=lambda trial: trial.size_bytes)


def time_scale(trials: Sequence[Trial]) -> Normalize | None:
    """Colour scale of the predicted decode times; None unless every trial has one."""
    from matplotlib.colors import Normalize

    times = [trial.times.decode_ms for trial in trials if trial.times.decode_ms is not None]
    return Normalize(min(times), max(times)) if times and len(times) == len(trials) else None


def draw_choices(outcome: Outcome, inventory: Inventory, path: Path) -> None:
    """Draws the winner's choices: layers by roles, coloured by stored bits per original weight."""
    best = outcome.best
    if best is None:
        return
    decided = {site.name: (site, choice) for site, choice in best.plan.decided(inventory)}
    cells: dict[tuple[str, int | None], tuple[float, str]] = {}
    for site in inventory.leaves:
        cells[role(site), site.block] = cell(site, best.plan, decided, inventory)
    name = "Best so far" if outcome.decision.winner is None else "Winner"
    title = f"{name}: trial {best.number}, {best.size_bytes:,} bytes"
    draw_map(cells, path, title=title, label="stored bits per original weight", colours="YlGnBu", logarithmic=False)


def draw_sensitivity(
    losses: Mapping[tuple[str, Choice], float], outcome: Outcome, inventory: Inventory, path: Path
) -> None:
    """Draws each site's predicted loss when compressed alone at its choice nearest to 3 bits."""
    cells: dict[tuple[str, int | None], tuple[float, str]] = {}
    for site in inventory.leaves:
        options = [choice for name, choice in losses if name == site.name and choice != KEEP]
        if options:
            choice = min(options, key=lambda c: (abs(getattr(c, "bits", 16) - 3), c.method != "quantize", str(c)))
            value = max(losses[site.name, choice], LOWEST)
            cells[role(site), site.block] = (float(np.log10(value)), f"{short(choice)}\n{value:.1e}")
    title = "Sensitivity: predicted loss of each site compressed alone, near 3 bits (search set)"
    draw_map(
        cells,
        path,
        title=title,
        label=f"log10 of the {metrics[usual_metric(outcome.question.metric)].axis}",
        colours="OrRd",
        logarithmic=True,
    )


def role(site: Site) -> str:
    """A site's role within its block: its name without the block's prefix."""
    if site.block is None:
        return site.name.rpartition(".")[2] if "{" not in site.name else site.name
    return re.split(rf"\.{site.block}\.", site.name, maxsplit=1)[-1]


def cell(site: Site, plan: Plan, decided: Mapping[str, tuple[Site, Choice]], inventory: Inventory) -> tuple[float, str]:
    """Bits per weight and label of a leaf under a plan; a covered leaf shows the site that overrules it."""
    owner = site
    if site.name not in decided:
        owner = next(parent for parent, _ in decided.values() if site.name in parent.covers)
    choice = plan[owner.name]
    if owner.kind == "block":
        return 0.0, "dropped"
    weights = sum(member.parameters for member in owner.members)
    bias = sum(member.bias.size_bytes for member, _ in choice_members(owner, choice) if member.bias)
    return 8 * (total_bytes(site_layout(owner, choice)) - bias) / weights, short(choice)


def short(choice: Choice) -> str:
    """A choice in a few characters: ``4b g32``, ``prune 0.5``, ``lowrank 16 > 8b``."""
    knobs = choice.knobs
    if choice.method == "quantize":
        text = (
            f"{knobs.get('bits', '')}b g{knobs['group_size']}" if "group_size" in knobs else f"{knobs.get('bits', '')}b"
        )
        text += "" if knobs.get("symmetric", True) else " a"
    else:
        text = " ".join(
            [choice.method, *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in knobs.values())]
        )
    return f"{text} > {short(choice.then)}" if choice.then else text


def draw_map(
    cells: Mapping[tuple[str, int | None], tuple[float, str]],
    path: Path,
    *,
    title: str,
    label: str,
    colours: str,
    logarithmic: bool,
) -> None:
    """Draws a heat map of layers (rows) by roles (columns); sites outside the layers form rows of their own on top."""
    blocks = sorted({block for _, block in cells if block is not None})
    roles = list(dict.fromkeys(name for name, block in cells if block is not None))
    outside = [name for name, block in cells if block is None]
    values = np.full((len(blocks) + len(outside), max(len(roles), 1)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for row, name in enumerate(outside):
        values[row, :], texts[row, -1] = cells[name, None]
    for row, block in enumerate(blocks, start=len(outside)):
        for column, name in enumerate(roles):
            if (name, block) in cells:
                values[row, column], texts[row, column] = cells[name, block]
    figure = new_figure(max(8.0, 1.45 * len(roles) + 2.6), max(3.0, 0.42 * min(len(values), ROWS) + 1.8))
    axes = figure.add_subplot()
    high = float(np.nanmax(values))
    low, high = (max(float(np.nanmin(values)), high - 3), high) if logarithmic else (0.0, max(8.0, high))
    rows, columns = values.shape
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    image = axes.pcolormesh(  # imshow would take 35 bytes more per pixel
        *edges, values, cmap=colours, vmin=low, vmax=high if high > low else low + 1
    )
    axes.set_ylim(rows - 0.5, -0.5)
    figure.colorbar(image, ax=axes, label=label, pad=0.015, fraction=0.04)
    if len(values) <= ROWS:
        for (row, column), text in texts.items():
            value = values[row, max(column, 0)]
            dark = (value - low) / ((high - low) or 1) > 0.55
            place = (len(roles) - 1) / 2 if column < 0 else column
            line = text if column >= 0 else text.replace("\n", "   ")
            axes.text(place, row, line, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
    names = [*outside, *(f"layer {block}" for block in blocks)]
    every = max(1, len(names) // ROWS)
    axes.set_yticks(range(0, len(names), every), names[::every], fontsize=8)
    axes.set_xticks(
        range(len(roles)), [name.replace("self_attn.", "").replace("mlp.", "") for name in roles], fontsize=8
    )
    axes.set_xticks(np.arange(len(roles) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(values) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    save(figure, path)


def byte_unit(size: int) -> tuple[float, str]:
    """The largest unit that a size reaches, in bytes, and its name."""
    return next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= unit), (1.0, "bytes")
    )


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without a window backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, axes: Axes, path: Path) -> None:
    """Adds grid, frame and legend, then writes the file."""
    axes.grid(which="major", color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.title.set_fontsize(10.5)
    axes.title.set_color(INK)
    axes.legend(frameon=False, fontsize=9, loc="best")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes the picture atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    write_atomically(path, buffer.getvalue())
    del figure
    gc.collect()  # a figure has reference cycles: without this its pixels stay in memory
