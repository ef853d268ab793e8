"""The whole public configuration of a score model: everything but the arrays it learns.

A plan carries it, so a site knows beforehand every question to its records, and its size. From the
server a site takes only arrays, whose names, types, shapes and ranges follow from here
(`dppm_model.score.arrays`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar

from dppm_model.bounds import Between, check_settings, from_settings
from dppm_model.errors import ConfigError
from dppm_model.score.arrays import Arrays
from dppm_model.score.dct import Basis
from dppm_model.score.mixture_config import MixtureConfig, Scales
from dppm_model.score.part import Part, Shape
from dppm_model.score.pretrained import PretrainedConfig
from dppm_model.score.pyramid import PyramidConfig
from dppm_model.score.residual import ResidualConfig

# The registry of parts, the lowest first: each may build on those before it in this table. To add
# one, add its module and its line here.
PARTS: dict[str, type[Part]] = {
    kind.group: kind for kind in (MixtureConfig, PretrainedConfig, ResidualConfig, PyramidConfig)
}
_MOST_SIDE = 1024  # pixels
_NOT_OF_A_MODEL = {"phases"}  # groups under ``model`` of a configuration that are no part

P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class PublicData:
    """Public records on which the model was pre-trained: their name and digest."""

    data: str
    digest: str

    def __post_init__(self) -> None:
        check_settings(self, "public")


@dataclass(frozen=True)
class ModelConfig:
    """The public settings of a model, fixed before the first round.

    Attributes
    ----------
    shape
        (C, H, W) of an image.
    classes
        Number of classes.
    parts
        Its parts, in the order of `PARTS`.
    public
        Public records on which it was pre-trained, if any.

    Raises
    ------
    ConfigError
        If a field is of the wrong type or out of its range.
    """

    shape: Shape
    classes: Annotated[int, Between(1, 1e5)]
    parts: tuple[Part, ...]
    public: PublicData | None = None

    def __post_init__(self) -> None:
        sides = self.shape
        if len(sides) != 3 or any(type(n) is not int or not 1 <= n <= _MOST_SIDE for n in sides):
            raise ConfigError(
                f"model.shape is {sides!r}.", f"Give [C, H, W], each from 1 to {_MOST_SIDE}."
            )
        check_settings(self, "model")
        for part in self.parts:
            part.check(self)

    def find(self, kind: type[P]) -> P | None:
        """Return a part, or None."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    def part(self, kind: type[P], hint: str = "Use another model=….") -> P:
        """Return a part that the model must have.

        Raises
        ------
        ConfigError
            If the model has none.
        """
        found = self.find(kind)
        if found is None:
            raise ConfigError(f"The model has no {kind.group}.", hint)
        return found

    def replace(self, part: Part) -> ModelConfig:
        """Return the configuration with one part replaced by another of its kind."""
        parts = tuple(part if type(p) is type(part) else p for p in self.parts)
        return ModelConfig(self.shape, self.classes, parts, self.public)

    @cached_property
    def base_shape(self) -> Shape:
        """(C, h, w) of the base image, whose density the lowest part is."""
        shape = self.shape
        for part in reversed(self.parts):
            shape = part.inner_shape(shape)
        return shape

    @property
    def mixture(self) -> MixtureConfig:
        """The closed form's settings."""
        return self.part(MixtureConfig)

    @cached_property
    def scales(self) -> Scales:
        """The closed form's public scales of the base image."""
        return Scales(self.mixture, Basis(self.base_shape))

    @cached_property
    def public_arrays(self) -> Arrays:
        """The public arrays, as installed here; the plan names them by digest."""
        return {name: a for part in self.parts for name, a in part.public_arrays(self).items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `from_dict` reads back."""
        return {
            "shape": list(self.shape),
            "classes": self.classes,
            "parts": {part.group: part.to_dict() for part in self.parts},
            "public": None if self.public is None else asdict(self.public),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Rebuild a configuration, validating every field.

        Raises
        ------
        ConfigError
            If a field is unknown or out of range.
        TypeError, KeyError, ValueError
            If a field is missing or of another type.
        """
        groups = _known(raw["parts"])
        fields = {
            "shape": tuple(raw["shape"]),
            "parts": tuple(PARTS[group].from_dict(groups[group]) for group in groups),
            "public": None
            if raw["public"] is None
            else from_settings(PublicData, "public", raw["public"]),
        }
        return from_settings(cls, "model", {**raw, **fields})

    @classmethod
    def of(cls, shape: Shape, classes: int, settings: Mapping[str, Any]) -> ModelConfig:
        """Build it from a configuration's groups, each of which must be in `PARTS`.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of range, or the parts do not fit the shape.
        """
        groups = _known({g: v for g, v in settings.items() if g not in _NOT_OF_A_MODEL})
        return cls(shape, classes, tuple(PARTS[g].of(groups[g], shape) for g in groups))


def _known(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Put groups in the order of `PARTS`.

    Raises
    ------
    ConfigError
        If one is not a part.
    """
    if unknown := sorted(groups.keys() - PARTS.keys()):
        raise ConfigError(f"model.{unknown[0]} is not a part.", f"Use: {', '.join(PARTS)}.")
    return {group: groups[group] for group in PARTS if group in groups}
