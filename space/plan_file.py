"""``plan.yaml``: a plan with its provenance and its measurements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from paredown.space.choice import KEEP, Choice, parse_choice
from paredown.space.errors import PlanError, UnknownNameError
from paredown.space.plan import Plan
from paredown.space.site import Inventory, modules_of
from paredown.space.system.files import write_atomically
from paredown.space.system.yaml_files import read_yaml, yaml_text
from paredown.space.targets.target import Target, targets

DIGITS = 16
"""Length of a fingerprint in a plan file [hexadecimal digits]."""


def _known_choice(value: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_choice(value)
    except (PlanError, UnknownNameError) as error:
        raise ValueError(str(error)) from None
    return value


class BaseModelReference(BaseModel):
    """The original model that a plan was made for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str | None = None
    architecture: str
    config_sha256: str
    shapes_sha256: str = Field(
        description="fingerprint of module names and shapes; a model must have the same one to take the plan"
    )


class Default(BaseModel):
    """Choice for the sites that the plan does not name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["keep"] = "keep"


class Calibration(BaseModel):
    """Calibration texts of the calibrated choices, and how they were used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: list[str] = Field(description="as in a study file")
    tokens: int = Field(ge=1)
    sequence_length: int = Field(ge=1)
    seed: int = Field(ge=0)
    sha256: str = Field(description="fingerprint of the tokens")
    in_order: bool = Field(
        description="whether each matrix was compressed on the inputs that the already compressed model gives it"
    )


class Records(BaseModel):
    """Digests of the tensors that the plan's quality was measured with.

    The other fields say what the tensors depend on besides the calibration texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str = Field(description="fingerprint of the original's weight files")
    config: str = Field(description="fingerprint of the original's effective configuration")
    versions: dict[str, str] = Field(description="versions of the libraries and of paredown's methods")
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
    size_bytes: int = Field(ge=0, description="size of the tensors that apply writes [bytes]")
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
        """The content of a plan file.

        Raises:
            PlanError: If the file is not a valid plan file; the message lists every fault with its line.
        """
        return read_yaml(path, cls, PlanError)

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        write_atomically(path, self.to_yaml())

    def to_yaml(self) -> str:
        """Text of the file."""
        data = self.model_dump(mode="json", exclude_none=True)
        data["base_model"].setdefault("revision", None)
        return yaml_text(data, flow_leaves=True)

    def parsed(self) -> dict[str, Choice]:
        """Choices by site name, as the file gives them."""
        return {site: parse_choice(mapping) for site, mapping in self.choices.items()}

    def plan_for(self, inventory: Inventory, target: Target | None = None) -> Plan:
        """The plan for a model, checked against the model and the target.

        The model's sites may be grouped differently: a choice for several matrices at once becomes one for each, and
        equal choices for single matrices become one for all.

        Raises:
            PlanError: If the model has other modules or shapes, tied matrices have different choices, or the target
                cannot run a choice.
        """
        if inventory.architecture != self.base_model.architecture:
            raise PlanError(
                f"the plan was made for {self.base_model.architecture} ({self.base_model.name}), but the model is "
                f"{inventory.architecture}; give the model that it was made for, or a fine-tune of it"
            )
        if inventory.shapes_sha256() != self.base_model.shapes_sha256:
            unknown = sorted(set(self.choices) - {site.name for site in inventory.sites})
            detail = f"; it has no {unknown[0]}" if unknown else ""
            raise PlanError(
                f"the plan was made for the module names and shapes of {self.base_model.name}, but this model has "
                f"others{detail}; give that model or a fine-tune of it"
            )
        plan = Plan.of(inventory, regrouped(self.parsed(), inventory))
        plan.check(inventory, target or targets[self.target])
        return plan


def regrouped(choices: Mapping[str, Choice], inventory: Inventory) -> dict[str, Choice]:
    """The choices keyed by the sites of an inventory.

    Raises:
        PlanError: If matrices that must take one choice have different ones.
    """
    known = {site.name for site in inventory.sites}
    found = {site: choice for site, choice in choices.items() if site in known}
    by_module = {module: choice for site, choice in choices.items() if site not in known for module in modules_of(site)}
    for site in inventory.leaves if by_module else ():
        asked = {by_module.pop(member.module, None) for member in site.members}
        if len(asked) > 1:
            raise PlanError(
                f"the target needs one choice for all of {site.name}, but the plan has several; make them equal"
            )
        if (choice := asked.pop()) is not None:
            found[site.name] = choice
    return found | by_module  # unknown modules stay in, so that they are refused by name


def choices_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """The choices of a plan as a plan file stores them."""
    return {site: choice.to_mapping() for site, choice in plan.entries if choice != KEEP}
