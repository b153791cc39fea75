"""The command line: its commands, in the order of the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import paredown
from paredown.cli.model_commands import apply, evaluate, generate, inspect, validate, verify
from paredown.cli.study_commands import bank, dashboard, demo, report, search, select, status, transfer

app = typer.Typer(
    name="paredown",
    help="Pare a transformer down to the size you have.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done; 2 bad input, a full disk or too little memory; 3 no plan meets the budget; 70 a bug; "
    "130 stopped.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect,
    "search": search,
    "status": status,
    "report": report,
    "select": select,
    "transfer": transfer,
    "bank": bank,
    "validate": validate,
    "apply": apply,
    "eval": evaluate,
    "generate": generate,
    "verify": verify,
    "dashboard": dashboard,
    "demo": demo,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        print(paredown.__version__)
        raise typer.Exit
