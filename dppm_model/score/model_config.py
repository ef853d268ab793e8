"""The whole public configuration of a score model: everything of it but the arrays it learns.

A plan carries it. So a site knows beforehand what will be asked of its records, and of which sizes;
from the server it takes arrays, whose names, types, shapes and ranges follow from here
(`dppm_model.score.arrays`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any

from dppm_model.errors import ConfigError
from dppm_model.score.dct import Basis
from dppm_model.score.mixture_config import MOST_COEFFICIENTS, MixtureConfig, Scales
from dppm_model.score.pyramid import PyramidConfig
from dppm_model.score.residual_config import ResidualConfig
from dppm_model.score.settings import Between, check_settings, from_settings

_MOST_SIDE = 1024  # pixels


@dataclass(frozen=True)
class PublicData:
    """Records that are nobody's and that taught the model first: their name, and their digest."""

    data: str
    digest: str

    def __post_init__(self) -> None:
        check_settings(self, "public")


@dataclass(frozen=True)
class ModelConfig:
    """What is public of a model, and fixed before the first round.

    Attributes
    ----------
    shape
        (C, H, W) of an image.
    classes
        How many classes there are.
    mixture, residual, pyramid
        The constants of the closed form, of the network on top of it if there is to be one, and of
        the stages above.
    public
        What taught it first, if anything did.

    Raises
    ------
    ConfigError
        If a field is of the wrong type or out of its range.
    """

    shape: tuple[int, int, int]
    classes: Annotated[int, Between(1, 1e5)]
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    residual: ResidualConfig | None = None
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    public: PublicData | None = None

    def __post_init__(self) -> None:
        sides = self.shape
        if len(sides) != 3 or any(type(n) is not int or not 1 <= n <= _MOST_SIDE for n in sides):
            raise ConfigError(
                f"model.shape is {sides!r}.", f"Give [C, H, W], each from 1 to {_MOST_SIDE}."
            )
        check_settings(self, "model")
        self.pyramid.check(self.shape)
        if self.scales.basis.size > MOST_COEFFICIENTS:
            raise ConfigError(
                f"The base image has {self.scales.basis.size} numbers.",
                f"Import smaller images, or use model=pyramid: at most {MOST_COEFFICIENTS}.",
            )

    @property
    def base_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the base image, which is the image itself unless there is a pyramid."""
        return self.pyramid.base_shape(self.shape)

    @cached_property
    def scales(self) -> Scales:
        """The public scales of the base image."""
        return Scales(self.mixture, Basis(self.base_shape))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `from_dict` reads back."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Rebuild a configuration, validating every field.

        Raises
        ------
        ConfigError
            If a field is unknown or out of range; TypeError, KeyError or ValueError if one is
            missing or nothing of the kind.
        """
        parts = {
            "shape": tuple(raw["shape"]),
            "mixture": MixtureConfig.from_dict(raw["mixture"]),
            "residual": None
            if raw["residual"] is None
            else ResidualConfig.from_dict(raw["residual"]),
            "pyramid": from_settings(PyramidConfig, "pyramid", raw["pyramid"]),
            "public": None
            if raw["public"] is None
            else from_settings(PublicData, "public", raw["public"]),
        }
        return from_settings(cls, "model", {**raw, **parts})

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any]
    ) -> ModelConfig:
        """Build it from the groups of a configuration: ``mixture``, ``residual``, ``pyramid``.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of range, or the shape does not fit the stages.
        """
        return cls(
            shape,
            classes,
            MixtureConfig.from_dict(settings.get("mixture", {})),
            ResidualConfig.from_dict(settings["residual"]) if "residual" in settings else None,
            PyramidConfig.from_dict(settings.get("pyramid", {}), shape),
        )
