"""Public constants of the pyramid: its octaves, and the training of their network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dppm_model.errors import ConfigError
from dppm_model.score.settings import from_settings

# Noise levels that the network is trained for: of an image, and of the one below it.
LEAST_SIGMA, MOST_SIGMA, MOST_BELOW = 0.02, 2.0, 1.0
CROP = 32  # pixels a side of what the network is trained on
_LEAST_BASE = CROP // 2  # pixels a side of a base, so that the image above holds a crop
_BASE = 32  # pixels of the shorter side that a base has at least, if nothing is said
_LARGEST_BASE = 64  # and at most: its covariance has as many rows as it has pixels


@dataclass(frozen=True)
class PyramidConfig:
    """Constants of the octaves; all public, none taken from private data.

    Attributes
    ----------
    octaves
        How often the base image is doubled; 0 is no pyramid.
    handover, octave_handover
        Noise level at which the first octave takes over from the base, and each other octave from
        the one below: what is finer than that level is left to it.
    clip_share
        The clip norm is this multiple of the median gradient norm on drawn shapes.
    learning_rate, warmup, rounds, ema
        Of the private rounds, as in `dppm_model.score.residual_config`.
    """

    octaves: int = 0
    handover: float = 0.3
    octave_handover: float = 0.1
    clip_share: float = 0.8
    learning_rate: float = 0.002
    warmup: int = 5
    rounds: int = 40
    ema: float = 0.9

    def __post_init__(self) -> None:
        for field in fields(self):
            value, name = getattr(self, field.name), f"pyramid.{field.name}"
            number = type(value) in (int, float)
            least = 0 if field.name == "octaves" else 1
            if field.type == "int" and (type(value) is not int or value < least):
                raise ConfigError(f"{name} is {value!r}.", f"Give a whole number from {least} on.")
            if field.type == "float" and not (number and 0 <= value < math.inf):
                raise ConfigError(f"{name} is {value!r}.", "Give a number, zero or above.")
        for name in ("handover", "octave_handover"):
            if not LEAST_SIGMA <= getattr(self, name) <= MOST_BELOW:
                raise ConfigError(
                    f"pyramid.{name} is {getattr(self, name)!r}.",
                    f"Give a noise level from {LEAST_SIGMA} to {MOST_BELOW}.",
                )
        if self.clip_share == 0:
            raise ConfigError("pyramid.clip_share is 0.", "Give a number above zero.")
        if self.ema >= 1:
            raise ConfigError(f"pyramid.ema is {self.ema}.", "Give a number below one.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], image: tuple[int, int, int]) -> PyramidConfig:
        """Build from a plain dictionary for images (C, H, W); missing keys take their defaults.

        Where ``octaves`` is None, it is as many as leave the shorter side of the base at least 32
        pixels.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range; if the sides cannot be halved so often,
            the base would be too small, or the image is neither grey nor RGB.
        """
        most = _most_octaves(image, _LEAST_BASE)
        wanted = values.get("octaves", 0)
        config = from_settings(
            cls,
            "pyramid",
            {**values, "octaves": _most_octaves(image, _BASE) if wanted is None else wanted},
        )
        if config.octaves > most or (wanted is None and not config.octaves):
            raise ConfigError(
                f"pyramid.octaves is {wanted}, but images have {image[1]} x {image[2]} pixels.",
                f"At most {most} fit: the base needs even sides of {_LEAST_BASE} pixels at least.",
            )
        if wanted is None and (side := min(config.base_shape(image)[1:])) > _LARGEST_BASE:
            raise ConfigError(
                f"Images have {image[1]} x {image[2]} pixels, their base {side} a side.",
                "Import them with a --size like 128, 192 or 256, or set pyramid.octaves.",
            )
        if config.octaves and image[0] not in (1, 3):
            raise ConfigError(
                f"The pyramid is for grey and RGB images, not for {image[0]} channels.",
                "Import the images as grey or RGB.",
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that ``from_dict`` reads back."""
        return asdict(self)

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level at which each octave takes over, lowest first."""
        return (self.handover, *(self.octave_handover,) * (self.octaves - 1))[: self.octaves]

    def base_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the (C, h, w) of the base of an image (C, H, W)."""
        channels, height, width = shape
        return channels, height >> self.octaves, width >> self.octaves


def _most_octaves(image: tuple[int, int, int], least: int) -> int:
    """How often both sides can be halved, and leave an even base of so many pixels a side.

    Even, because the image above it is worked on in squares of four pixels a side.
    """
    _, height, width = image
    octaves = 0
    while height % 4 == width % 4 == 0 and min(height, width) >= 2 * least:
        height, width, octaves = height // 2, width // 2, octaves + 1
    return octaves
