"""``plan.yaml``: a plan with where it came from and what it was worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import PlanError, UnknownNameError
from paredown.space.files import read_yaml, write_atomically
from paredown.space.plan import Plan
from paredown.space.site import Inventory, modules_of
from paredown.space.target import Target, targets

DIGITS = 16
"""Hexadecimal digits of a fingerprint in a plan file."""


def _known_choice(value: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_choice(value)
    except (PlanError, UnknownNameError) as error:
        raise ValueError(str(error)) from None
    return value


class BaseModelReference(BaseModel):
    """The original that a plan was made on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str | None = None
    architecture: str
    config_sha256: str
    shapes_sha256: str = Field(
        description="fingerprint of module names and shapes: what a model must share to take the plan"
    )


class Default(BaseModel):
    """What happens to a site that is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["keep"] = "keep"


class Calibration(BaseModel):
    """The texts that calibrated choices were compressed with, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[str] = Field(description="as in a study file")
    tokens: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    seed: int = Field(ge=0)
    sha256: str = Field(description="fingerprint of the tokens")
    in_order: bool = Field(
        description="whether each matrix was compressed on the inputs that the compressed ones before it give"
    )


class Records(BaseModel):
    """The tensors that a plan's quality was measured with, by digests, and what they follow from beside the calibration texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str = Field(description="fingerprint of the original's weight files")
    config: str = Field(description="fingerprint of the original's effective configuration")
    versions: dict[str, str] = Field(description="of the libraries, and of paredown's methods")
    machine: str = Field(description="processor and threads")
    sha256: dict[str, str] = Field(description="by site: digest of the tensors that apply must write")


class PlanFile(BaseModel):
    """A plan file, version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    base_model: BaseModelReference
    target: str
    default: Default = Default()
    choices: dict[str, Annotated[dict[str, Any], AfterValidator(_known_choice)]]
    size_bytes: int = Field(ge=0, description="tensors that apply writes [bytes]")
    calibration: Calibration | None = None
    records: Records | None = None
    quality: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    compared_with: dict[str, Any] | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        return targets.checked(value)

    @classmethod
    def read(cls, path: Path) -> PlanFile:
        """The plan of a file.

        Raises:
            PlanError: If it is not a plan; every fault with its line.
        """
        return read_yaml(path, cls, PlanError)

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        write_atomically(path, self.to_yaml())

    def to_yaml(self) -> str:
        """The file's text."""
        data = self.model_dump(mode="json", exclude_none=True)
        data["base_model"].setdefault("revision", None)
        return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=140, allow_unicode=True)

    def parsed(self) -> dict[str, Choice]:
        """Choices by site name, as the file gives them."""
        return {site: parse_choice(mapping) for site, mapping in self.choices.items()}

    def plan_for(self, inventory: Inventory, target: Target | None = None) -> Plan:
        """The plan for a model, once everything was checked against it; what was decided for several matrices at once may be
        decided for each here, and the other way round where they agree.

        Raises:
            PlanError: If the model has other modules or shapes, or its target cannot run a choice.
        """
        if inventory.architecture != self.base_model.architecture:
            raise PlanError(
                f"the plan was made for {self.base_model.architecture} ({self.base_model.name}), the model is "
                f"{inventory.architecture}; give the model that it was made for, or a fine-tune of it"
            )
        if inventory.shapes_sha256() != self.base_model.shapes_sha256:
            unknown = sorted(set(self.choices) - {site.name for site in inventory.sites})
            detail = f"; it has no {unknown[0]}" if unknown else ""
            raise PlanError(
                f"the plan was made for the module names and shapes of {self.base_model.name}, and this model has others{detail}; "
                "give that model or a fine-tune of it"
            )
        plan = Plan.of(inventory, _regrouped(self.parsed(), inventory))
        plan.check(inventory, target or targets[self.target])
        return plan


def _regrouped(choices: Mapping[str, Choice], inventory: Inventory) -> dict[str, Choice]:
    """The choices by the inventory's own sites.

    Raises:
        PlanError: If matrices that must take one choice there have several.
    """
    known = {site.name for site in inventory.sites}
    found = {site: choice for site, choice in choices.items() if site in known}
    by_module = {module: choice for site, choice in choices.items() if site not in known for module in modules_of(site)}
    for site in inventory.leaves if by_module else ():
        asked = {by_module.pop(member.module, None) for member in site.members}
        if len(asked) > 1:
            raise PlanError(
                f"the target needs one choice for all of {site.name}, the plan has several; give them the same one"
            )
        if (choice := asked.pop()) is not None:
            found[site.name] = choice
    return found | by_module  # what no site has is refused with its name


def choices_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """The choices as a plan file holds them."""
    return {site: choice.to_mapping() for site, choice in plan.entries if choice != KEEP}
