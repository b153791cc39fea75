"""What the benchmarks on a model share: the arguments that name it and its texts, and how much of them is read."""

from __future__ import annotations

import argparse

from paredown.space.study_file import Tokens

SETS = ("calibration", "search", "selection", "held_out")


def model_parser(text: str | None, tokens: Tokens) -> argparse.ArgumentParser:
    """A parser of these arguments; so many tokens are read of each set by default."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="studies/models/demo")
    parser.add_argument("--data", nargs="+", default=["stdlib"])
    for name in SETS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=getattr(tokens, name), help="tokens", metavar="TOKENS"
        )
    return parser


def tokens_asked(options: argparse.Namespace) -> Tokens:
    """The tokens that were asked for."""
    return Tokens(**{name: getattr(options, name) for name in SETS})
