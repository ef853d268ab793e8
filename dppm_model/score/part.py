"""A part of a score model: public settings, the arrays that they call for, and what both make.

A model is a stack of parts, the lowest first: a density in closed form, a network on top of it, a
pyramid of stages above. Each is a frozen dataclass of settings in a module of its own, which alone
knows its arrays by name; `dppm_model.score.model_config.PARTS` lists them.
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
    """What a part may do; by default it does nothing.

    Attributes
    ----------
    group
        Its group of settings: ``model.GROUP`` of a configuration.
    whole
        Names of the arrays that `start` gives: no model file is read without them. An array that
        a phase adds is not one of them; `denoiser` refuses or goes without it.
    """

    group: ClassVar[str]
    whole: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_settings(self, self.group)

    @classmethod
    def of(cls, values: Mapping[str, Any], image: Shape) -> Self:
        """Build it from its group for images (C, H, W); what is missing takes its default.

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
            Naming a setting.
        """

    def inner_shape(self, shape: Shape) -> Shape:
        """Return the shape of what the parts below see of images of this shape."""
        return shape

    def encode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Show records (n, C, H, W) to the parts below, (n, *inner_shape); by public arrays only.

        Each row must be a function of its record alone, to the last bit: matrices are multiplied
        through `dppm_model.mechanism.products`.
        """
        del arrays
        return x

    def decode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Return the images of what the parts below have drawn."""
        del arrays
        return x

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """Return its rows of the table of arrays."""
        del config
        return {}

    def public_arrays(self, config: ModelConfig) -> Arrays:
        """Return this installation's copy of its public arrays."""
        del config
        return {}

    def start(self, config: ModelConfig) -> Arrays:
        """Return the private arrays that are there before any phase, from public constants."""
        del config
        return {}

    def denoiser(
        self, config: ModelConfig, arrays: Arrays, below: BaseDenoiser | None
    ) -> BaseDenoiser | None:
        """Build the denoiser that it makes of the one below.

        Raises
        ------
        ModelError
            If an array that it needs is not there.
        """
        del config, arrays
        return below

    def upsampling(
        self, config: ModelConfig, arrays: Arrays, device: torch.device
    ) -> Upsampling | None:
        """Build the stages from the base image to the image, if it is what adds them.

        Raises
        ------
        ModelError
            If an array that it needs is not there.
        """
        del config, arrays, device
        return None
