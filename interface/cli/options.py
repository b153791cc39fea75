"""Options that several commands share, and those of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paredown.search.trials.counts import UNIT

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Folder = Annotated[Path, typer.Argument(help="the study folder", show_default=False)]

# -- the question of a study ----------------------------------------------------------------------------

Model = Annotated[str | None, typer.Option(help="the original: a folder or a hub name", show_default=False)]
Data = Annotated[
    list[str] | None, typer.Option(help="text files, folders, hub:NAME, or stdlib; may be repeated", show_default=False)
]
Target = Annotated[
    str | None,
    typer.Option(help="runtime of the result, such as transformers; default: paredown", show_default=False),
]
BudgetText = Annotated[str | None, typer.Option(help="45% of the original, 3.5GB or 4.25bpw", show_default=False)]
Sampler = Annotated[
    str | None,
    typer.Option(help="frontier (default), evopress, amq, tpe, nsga2, nsga3, gp, random", show_default=False),
]
Latency = Annotated[
    str | None, typer.Option(help="measure (default), off, or the file of a latency table", show_default=False)
]
MaxDecode = Annotated[
    float | None, typer.Option(help="upper bound on the predicted time of a decoded token, in ms", show_default=False)
]
Seed = Annotated[int | None, typer.Option(min=0, show_default=False)]

# -- its end --------------------------------------------------------------------------------------------

Trials = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"at most this many {UNIT}; fewer if expected gains fall below the noise (--patience)",
        show_default=False,
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(help="time limit of the whole run: 45m, 1h30m, 90s, or a number of seconds", show_default=False),
]
Until = Annotated[str | None, typer.Option(help="time of day at which the run ends, HH:MM", show_default=False)]
Patience = Annotated[
    str | None,
    typer.Option(
        help="end the trials when gains fall below the noise (auto), after N without a better plan, or never (off)",
        show_default=False,
    ),
]

# -- how it is run --------------------------------------------------------------------------------------

StudyBank = Annotated[
    Path | None, typer.Option(help="folder of compressed sites; OUT/bank by default", show_default=False)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="processes that fill the bank, threads of in-order passes; one per core", show_default=False
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="if model, texts or libraries changed: move OUT aside and start over")
]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="instead of --fresh: resume with the existing trials and record the change")
]
