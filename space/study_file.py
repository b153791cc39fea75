"""``study.yaml``: the question that a search answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from paredown.space.budget import UNITS, Budget
from paredown.space.choice import parse_choice
from paredown.space.errors import ParedownError, StudyError
from paredown.space.site import Kind
from paredown.space.system.duration import duration_text, parse_duration
from paredown.space.system.files import write_atomically
from paredown.space.system.paths import expanded
from paredown.space.system.yaml_files import read_yaml, yaml_text
from paredown.space.targets.target import targets

ChoiceText = str | dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _at_home(value: Any) -> Any:
    return str(expanded(value)) if isinstance(value, str) and value.startswith("~") else value


def _checked(choices: list[ChoiceText]) -> list[ChoiceText]:
    faults = []
    for choice in choices:
        try:
            parse_choice(choice)
        except ParedownError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    return choices


class Override(_Strict):
    """Choices for the matching sites; the first override that matches a site wins. A single choice pins the site."""

    match: str = Field(
        description="a site's name, a class (Linear, Conv1D, Embedding), or re:PATTERN over the whole name"
    )
    choices: list[ChoiceText] = Field(min_length=1)

    _check = field_validator("choices")(_checked)


class AtLeast(_Strict):
    """Lower bound on the stored bits per weight of the matching sites and of the sites that overrule them."""

    match: str = Field(
        description="a site's name, a class (Linear, Conv1D, Embedding), or re:PATTERN over the whole name"
    )
    bits: float = Field(gt=0, description="fewest stored bits per weight, scales included")


class SpaceFile(_Strict):
    """The search space: choices that sites may take, and rules for them."""

    choices: dict[Kind, list[ChoiceText]] = Field(
        default_factory=dict, description="by kind of site; replaces the default choices"
    )
    overrides: list[Override] = Field(
        default_factory=list, description="choices of matching sites; the first match wins"
    )
    ties: list[list[str]] = Field(
        default_factory=list,
        description="groups of modules of a block, by the last part of their names, that take one choice; "
        "this shrinks the space",
    )
    at_least: list[AtLeast] = Field(
        default_factory=list, description="fewest bits per weight of matching sites; the strictest rule counts"
    )
    max_drops: int | None = Field(
        default=None,
        ge=0,
        description="most blocks, attentions and feed-forward networks that a plan leaves out; a quarter of the blocks "
        "by default",
    )

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, value: dict[Kind, list[ChoiceText]]) -> dict[Kind, list[ChoiceText]]:
        return {kind: _checked(choices) for kind, choices in value.items()}


class Tokens(_Strict):
    """How much text is read [tokens]."""

    calibration: int = Field(default=16384, ge=128, description="for the statistics of calibrated methods")
    search: int = Field(default=8192, ge=128, description="for every trial and for the sensitivities")
    selection: int = Field(default=16384, ge=128, description="for the finalists")
    held_out: int = Field(default=65536, ge=128, description="for the report; read once")
    sequence_length: int = Field(default=256, ge=16, description="length of a sequence; reduced to the model's maximum")


class StudyFile(_Strict):
    """A study file, version 1."""

    schema_version: Literal[1] = 1
    model: str = Field(description="a folder written by save_pretrained, or a repository on the hub")
    revision: str | None = Field(default=None, description="revision of a repository on the hub")
    data: list[str] = Field(default=["stdlib"], description="text files, folders, hub:NAME[:CONFIG[:SPLIT]], or stdlib")
    target: str = Field(
        default="paredown", description="runtime that the result must run in, such as paredown or transformers"
    )
    budget: Budget = Field(
        default=Budget.parse("45%"),
        description="45% of the original's tensor bytes, 3.5GB, or 4.25bpw; a unit is required",
    )
    trials: int | None = Field(
        default=None, ge=1, description="trial limit; a trial counts as the tokens of one plan on the whole search set"
    )
    timeout: float | None = Field(
        default=None, description="time limit of a run, all steps included: 45m, 1h30m, 90s, or a number of seconds"
    )
    until: str | None = Field(default=None, description="time of day at which a run ends, HH:MM")
    patience: Literal["auto", "off"] | int = Field(
        default="auto",
        description="when to end the trials early: auto (expected gains are below the noise), N (after N trials "
        "without a better plan), or off",
    )
    latency: str = Field(
        default="measure", description="measure (a table of this machine), off, or the file of an existing table"
    )
    max_decode_ms: float | None = Field(
        default=None,
        gt=0,
        description="upper bound on the predicted time of a decoded token [ms], by the latency table",
    )
    memory: str = Field(
        default="auto", description="limit for the weights in float32, such as 8GB; a larger model is streamed"
    )
    seed: int = Field(
        default=0, ge=0, description="seed of the sampler and of the selection of calibration and search documents"
    )
    bank: Literal["auto", "all", "lazy"] = Field(
        default="auto",
        description="all: compress every choice; lazy: compress calibrated choices only near the budget; "
        "auto: lazy above 1B parameters",
    )
    metric: str = Field(
        default="auto",
        description="distance from the original that trials minimise: auto (kl, or relative-error for encoders), "
        "or the name of a metric",
    )
    sensitivity: str = Field(
        default="single-site",
        description="estimator of the loss of a choice: single-site, single-site-full, combined, fisher, gradient, "
        "autoscheme, or angular",
    )
    sampler: str = Field(
        default="frontier",
        description="frontier, evopress, evopress-solver, amq, or Optuna's tpe, nsga2, nsga3, gp, random",
    )
    focus: Literal["budget", "front"] = Field(
        default="budget",
        description="what the trials are spent on: budget (the best plan within it) or front (the whole Pareto front)",
    )
    tokens: Tokens = Tokens()
    space: SpaceFile = SpaceFile()

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        values = [value] if isinstance(value, str) else value
        return [_at_home(each) for each in values] if isinstance(values, list) else values

    @field_validator("budget", mode="plain", json_schema_input_type=str)
    @classmethod
    def _budget(cls, value: Any) -> Budget:
        try:
            return value if isinstance(value, Budget) else Budget.parse(str(value))
        except StudyError as error:
            raise ValueError(str(error)) from None

    @field_serializer("budget")
    def _as_written(self, value: Budget) -> str:
        return value.text

    @field_validator("timeout", mode="before", json_schema_input_type=float | str | None)
    @classmethod
    def _timeout(cls, value: Any) -> float | None:
        try:
            return None if value is None else parse_duration(value)
        except StudyError as error:
            raise ValueError(str(error)) from None

    @field_serializer("timeout", when_used="json")
    def _readable(self, value: float | None) -> str | None:
        return None if value is None else duration_text(value)

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> str:
        text = str(value).strip()
        try:
            if text == "auto" or Budget.parse(text).unit in UNITS:
                return text
        except StudyError:
            pass
        raise ValueError(f"expected auto, or a size such as 8GB, got {text!r}")

    @field_validator("model", "latency", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return _at_home(value)

    @field_validator("patience", mode="before")
    @classmethod
    def _patience(cls, value: Any) -> Any:
        text = str(value).strip()
        if text not in ("auto", "off") and not (text.isdecimal() and int(text)):
            raise ValueError(f"expected auto, off, or a number of trials of at least 1, got {value!r}")
        return int(text) if text.isdecimal() else text

    @field_validator("target")
    @classmethod
    def _target(cls, value: str) -> str:
        return targets.checked(value)

    @field_validator("until", mode="before")
    @classmethod
    def _until(cls, value: Any) -> Any:
        if value is None:
            return None
        hours, colon, minutes = str(value).partition(":")
        if not (
            colon
            and hours.isdecimal()
            and minutes.isdecimal()
            and int(hours) < 24
            and int(minutes) < 60
            and len(minutes) == 2
        ):
            raise ValueError(f"expected a time of day such as 07:00, got {value!r}")
        return str(value)

    @model_validator(mode="after")
    def _timed(self) -> StudyFile:
        if self.max_decode_ms is not None and self.latency == "off":
            raise ValueError("max_decode_ms needs a latency table; leave 'latency: off' out")
        return self

    @classmethod
    def read(cls, path: Path) -> StudyFile:
        """The content of a study file.

        Raises:
            StudyError: If the file is not a valid study file; the message lists every fault with its line.
        """
        return read_yaml(path, cls, StudyError)

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        write_atomically(path, yaml_text(self.model_dump(mode="json")))

    def fixed_settings(self) -> dict[str, Any]:
        """Settings that must be equal to resume a study: all but stopping rules and memory, which change no number."""
        return self.model_dump(mode="json", exclude={"trials", "timeout", "until", "patience", "memory"})
