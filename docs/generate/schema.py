"""JSON Schemas of plan and study files, for editors; they cover every method and its knobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from paredown.space.choice import Choice, methods
from paredown.space.plan_file import PlanFile
from paredown.space.study_file import Override, SpaceFile, StudyFile
from paredown.space.targets.target import targets

DIALECT = "https://json-schema.org/draft/2020-12/schema"
CHOICE = {"$ref": "#/$defs/Choice"}


def plan_schema() -> dict[str, Any]:
    """Schema of ``plan.yaml``."""
    schema = _with_choices(PlanFile.model_json_schema())
    schema["properties"]["choices"]["additionalProperties"] = CHOICE
    schema["properties"]["target"]["enum"] = list(targets)
    return {"$schema": DIALECT, **schema, "title": "paredown plan"}


def study_schema() -> dict[str, Any]:
    """Schema of ``study.yaml``."""
    schema = _with_choices(StudyFile.model_json_schema())
    either = {"anyOf": [CHOICE, {"type": "string", "description": "the text form: quantize bits=4 group_size=64"}]}
    schema["$defs"][Override.__name__]["properties"]["choices"]["items"] = either
    schema["$defs"][SpaceFile.__name__]["properties"]["choices"]["additionalProperties"]["items"] = either
    properties = schema["properties"]
    properties["target"]["enum"] = list(targets)
    properties["data"] = {"anyOf": [properties["data"], {"type": "string"}], "default": properties["data"]["default"]}
    default = str(StudyFile.model_fields["budget"].default)
    properties["budget"] = {**properties["budget"], "type": ["string", "number"], "default": default}
    return {"$schema": DIALECT, **schema, "title": "paredown study"}


def method_schema(method: type[Choice]) -> dict[str, Any]:
    """Schema of a choice of one method: its knobs and its ``then``."""
    own = method.model_json_schema()
    knobs = {name: knob for name, knob in own["properties"].items() if name != "then"}
    if "block" not in method.kinds:
        then = method.model_fields["then"].description
        knobs["then"] = {"anyOf": [CHOICE, {"type": "string"}, {"type": "null"}], "default": None, "description": then}
    return {
        "type": "object",
        "description": summary(method),
        "properties": {"method": {"const": method.method}, **knobs},
        "required": ["method", *own.get("required", [])],
        "additionalProperties": False,
    }


def summary(thing: type[Any]) -> str:
    """First line of a class's docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and description of every field of a file; nested keys are joined by a dot."""
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from keys(nested, f"{prefix}{name}.")
            continue
        if field.default_factory is not None:
            default = "none"
        elif field.default is PydanticUndefined:
            default = "required"
        else:
            default = "none" if field.default is None else str(field.default).replace("'", "")
        yield prefix + name, default, field.description or ""


def _with_choices(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with definitions of every method and of a choice, which is one of them."""
    known = {f"method-{name}": method_schema(methods[name]) for name in methods}
    choice = {"description": "what is done to a site", "oneOf": [{"$ref": f"#/$defs/{name}"} for name in known]}
    return {**schema, "$defs": {**schema.get("$defs", {}), "Choice": choice, **known}}
