"""The arguments that benchmarks on a model share: model, texts and token counts."""

from __future__ import annotations

import argparse

from paredown.space.study_file import Tokens

SETS = ("calibration", "search", "selection", "held_out")


def model_parser(text: str | None, tokens: Tokens) -> argparse.ArgumentParser:
    """A parser of these arguments, with default token counts per set."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--data", nargs="+", default=["stdlib"])
    for name in SETS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=getattr(tokens, name), help="tokens", metavar="TOKENS"
        )
    return parser


def tokens_asked(options: argparse.Namespace) -> Tokens:
    """The requested token counts."""
    return Tokens(**{name: getattr(options, name) for name in SETS})
