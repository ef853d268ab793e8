"""A part of a score model: its public settings, its arrays, and the denoiser they give.

A model is a stack of parts, the lowest first: a density in closed form, a network on top of it, a
pyramid of stages above. Each is a frozen dataclass of settings in its own module, and no other
module knows its arrays by name; `dppm_model.score.model_config.PARTS` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch

from dppm_model.bounds import check_settings, from_settings
from dppm_model.score.arrays import Arrays, ArraySpec

if TYPE_CHECKING:
    from dppm_model.score.denoiser import BaseDenoiser, Upsampling
    from dppm_model.score.model_config import ModelConfig

Shape = tuple[int, int, int]  # (C, H, W)


class Part:
    """The interface of a part; every default does nothing.

    Attributes
    ----------
    group
        Its group of settings: ``model.GROUP`` of a configuration.
    whole
        Names of the arrays that `start` returns; a model file must have them. Arrays that a phase
        adds are not among them: without one, `denoiser` refuses or does without it.
    """

    group: ClassVar[str]
    whole: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_settings(self, self.group)

    @classmethod
    def of(cls, values: Mapping[str, Any], image: Shape) -> Self:
        """Build it from its group for images (C, H, W); missing keys take their defaults.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range.
        """
        del image
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild it from `to_dict`.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range.
        """
        return from_settings(cls, cls.group, values)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def check(self, config: ModelConfig) -> None:
        """Refuse a model that it does not fit.

        Raises
        ------
        ConfigError
            Names the setting.
        """

    def inner_shape(self, shape: Shape) -> Shape:
        """Return the shape that images of this shape have for the parts below."""
        return shape

    def encode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Return records (n, C, H, W) as the parts below see them; uses public arrays only.

        Each row must be a function of its record alone, to the last bit: matrices are multiplied
        through `dppm_model.mechanism.products`.
        """
        del arrays
        return x

    def decode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Return images from samples of the parts below."""
        del arrays
        return x

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """Return its rows in the table of arrays."""
        del config
        return {}

    @property
    def public_data(self) -> tuple[str, ...]:
        """Names of the data that taught its public arrays."""
        return ()

    def public_arrays(self, config: ModelConfig) -> Arrays:
        """Return this installation's copy of its public arrays."""
        del config
        return {}

    def start(self, config: ModelConfig) -> Arrays:
        """Return the private arrays before any phase, computed from public constants."""
        del config
        return {}

    def denoiser(
        self, config: ModelConfig, arrays: Arrays, below: BaseDenoiser | None
    ) -> BaseDenoiser | None:
        """Build its denoiser on top of the one below.

        Raises
        ------
        ModelError
            If an array that it needs is missing.
        """
        del config, arrays
        return below

    def upsampling(
        self, config: ModelConfig, arrays: Arrays, device: torch.device
    ) -> Upsampling | None:
        """Build the stages from the base image to the image, if this part has them.

        Raises
        ------
        ModelError
            If an array that it needs is missing.
        """
        del config, arrays, device
        return None
