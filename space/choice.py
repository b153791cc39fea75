"""Choices, as values: what is done to a site, by a compression method with its knobs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from paredown.space.errors import PlanError
from paredown.space.site import Kind, Member, Site
from paredown.space.statistics import NO_STATISTICS, Statistic, Statistics
from paredown.space.system.registry import Registry
from paredown.space.targets.target import Storage, Target
from paredown.space.tensors import Layout

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Dense matrix that remains after a method, with the statistics of its own inputs."""

    matrix: Tensor
    statistics: Statistics = NO_STATISTICS


class Choice(BaseModel):
    """A method with its knobs: a value. Each subclass is one method, and its fields are the knobs.

    A method is a `MatrixChoice`, which stores each matrix in another form, or a `StructureChoice`, which changes the
    matrices of a site together. ``then`` compresses further what remains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear"})
    without_statistics: ClassVar[Mapping[str, Any] | None] = None
    """Knobs to set so that a choice of equal bytes needs no statistics; None if there are none."""

    then: Choice | None = Field(default=None, description="choice that compresses the remaining dense parts")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.method, *(getattr(self, knob) for knob in type(self).model_fields)))

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("_hash", None)  # model_copy may change knobs
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {
            **state,
            "__dict__": {knob: state["__dict__"][knob] for knob in type(self).model_fields},
        }  # string hashes differ between processes

    @field_validator("then", mode="before")
    @classmethod
    def _parse_then(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, Choice) else parse_choice(value)

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """Choices of this method in the default space of a site."""
        return ()

    @classmethod
    def examples(cls) -> Sequence[Choice]:
        """Choices that the documentation shows for a method that offers none by default."""
        return () if any(knob.is_required() for knob in cls.model_fields.values()) else (cls(),)

    def canonical(self, shape: Shape) -> Choice:
        """Canonical form of the choice among those that are equivalent for this shape."""
        return self

    @property
    def storage(self) -> Storage:
        """What this step leaves for a runtime to load, ``then`` excluded; the method's own tensors by default."""
        return Storage(method=self.method, form="own")

    def supports(self, site: Site, target: Target) -> str | None:
        """Why the target cannot run this step at a site; None if it can."""
        return target.fault(site, self.storage)

    @property
    def uses(self) -> frozenset[Statistic]:
        """Statistics that this step needs, ``then`` excluded."""
        return frozenset()

    @property
    def needs(self) -> frozenset[Statistic]:
        """Statistics that the choice needs, ``then`` included."""
        return self.uses | (self.then.needs if self.then else frozenset())

    @property
    def data_free(self) -> Choice | None:
        """Choice of equal bytes that needs no statistics, by ``without_statistics``; None if there is none."""
        then = self.then.data_free if self.then else None
        if then is None and self.then is not None:
            return None
        free = self.model_copy(update={"then": then})
        if free.needs and self.without_statistics is not None:
            free = free.model_copy(update=self.without_statistics)
        return None if free.needs else free

    @property
    def steps(self) -> tuple[Choice, ...]:
        """The choice and the steps of its ``then``, in order."""
        return (self, *(self.then.steps if self.then else ()))

    @property
    def knobs(self) -> dict[str, Any]:
        """Knobs that differ from their defaults, in declared order, ``then`` excluded."""
        fields = type(self).model_fields
        return {k: v for k in fields if k != "then" and (v := getattr(self, k)) != fields[k].default}

    def to_mapping(self) -> dict[str, Any]:
        """The choice as a plan file stores it."""
        then = {"then": self.then.to_mapping()} if self.then else {}
        return {"method": self.method, **self.knobs, **then}

    def __str__(self) -> str:
        knobs = "".join(
            f" {name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in self.knobs.items()
        )
        return f"{self.method}{knobs}" + (f" then {self.then}" if self.then else "")

    @classmethod
    def build(cls, knobs: Mapping[str, Any]) -> Self:
        """The choice of this method with the given knobs.

        Raises:
            PlanError: If a knob is unknown, missing or out of range; the message lists all faults.
        """
        try:
            return cls(**knobs)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'knobs'}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            )
            known = ", ".join(cls.model_fields)
            raise PlanError(f"{cls.method}: {faults} (its knobs: {known})") from None


class MatrixChoice(Choice):
    """A method that turns a matrix into tensors of its *own* (codes, indices) and dense *parts* (factors, kept values).

    ``then`` compresses each part further; without it the parts are stored unchanged. Byte counts, files and the bank
    are derived from this for every method and composition.
    """

    @classmethod
    def site_offers(cls, site: Site) -> Sequence[Choice]:
        """What the method offers for the last matrix of a site."""
        return cls.offers(site.members[-1], site.kind) if site.members else ()

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Choices of this method in the default space of a matrix."""
        return ()

    def fault(self, shape: Shape) -> str | None:
        """Why a matrix of this shape cannot take the choice, with the remedy; None if it can."""
        return None

    def own(self, shape: Shape, dtype: str) -> Layout:
        """Specs of the method's own tensors for a matrix of this shape; pure."""
        return {}

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """Shapes of the dense parts that remain of a matrix of this shape; pure."""
        return {}

    @abstractmethod
    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """Own tensors and dense parts of a float32 matrix ``(out_features, in_features)``; not modified.

        Args:
            weight: The matrix.
            statistics: Statistics of the matrix, at least those in ``needs``.
        """

    @abstractmethod
    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The float32 matrix that the layer computes with."""


methods: Registry[type[Choice]] = Registry(
    "method", package="paredown.compressors.methods", group="paredown.methods", entry=Choice, own_name="method"
)


@methods.register("keep")
class Keep(MatrixChoice):
    """The matrix as the original stores it."""

    method: ClassVar[str] = "keep"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"linear", "embedding"})

    @classmethod
    def offers(cls, member: Member, kind: Kind) -> Sequence[Choice]:
        """Keep, for every matrix."""
        return (cls(),)

    @property
    def storage(self) -> Storage:
        """The matrix itself."""
        return Storage(method=self.method, form="dense")

    def fault(self, shape: Shape) -> str | None:
        """Refuses a ``then``: ``keep then X`` means the same as ``X``."""
        return f"'keep then {self.then}' means '{self.then}'; write '{self.then}'" if self.then else None

    def parts(self, shape: Shape) -> Mapping[str, Shape]:
        """The matrix itself."""
        return {"weight": shape}

    def encode(
        self, weight: Tensor, statistics: Statistics = NO_STATISTICS
    ) -> tuple[dict[str, Tensor], dict[str, Part]]:
        """The matrix itself."""
        return {}, {"weight": Part(matrix=weight, statistics=statistics)}

    def decode(self, own: Mapping[str, Tensor], parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        """The matrix itself."""
        return parts["weight"]


KEEP = Keep()


def matrix_choice(choice: Choice) -> MatrixChoice:
    """The choice, which must be one that a matrix takes.

    Raises:
        PlanError: If it changes the structure of a site instead.
    """
    if not isinstance(choice, MatrixChoice):
        raise PlanError(
            f"{choice.method} leaves no matrix to store; it is for {' and '.join(sorted(choice.kinds))} sites"
        )
    return choice


def parse_choice(value: str | Mapping[str, Any]) -> Choice:
    """A choice from a plan's mapping or from its text form ``quantize bits=4 group_size=64``.

    Raises:
        PlanError: If no method is named, or a knob is unknown, missing or out of range.
        UnknownNameError: If the method is not registered.
    """
    mapping = _from_text(value) if isinstance(value, str) else dict(value)
    name = mapping.pop("method", None)
    if not isinstance(name, str):
        raise PlanError(f"a choice needs a method; got {value!r}; known: {', '.join(methods)}")
    return methods[name].build(mapping)


def _from_text(text: str) -> dict[str, Any]:
    first, _, rest = text.partition(" then ")
    method, *knobs = first.split() or [""]
    mapping: dict[str, Any] = {"method": method}
    for knob in knobs:
        name, equals, value = knob.partition("=")
        if not equals or name in mapping:
            raise PlanError(f"expected 'method knob=value ...', got {text!r} (at {knob!r})")
        mapping[name] = value
    if rest:
        mapping["then"] = rest
    return mapping
