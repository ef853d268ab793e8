"""Public constants of the pyramid: its octaves, and the training of their network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from dppm_model.errors import ConfigError
from dppm_model.score.settings import Between, check_settings, from_settings

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

    octaves: Annotated[int, Between(0, 8)] = 0
    handover: Annotated[float, Between(LEAST_SIGMA, MOST_BELOW)] = 0.3
    octave_handover: Annotated[float, Between(LEAST_SIGMA, MOST_BELOW)] = 0.1
    clip_share: Annotated[float, Between(1e-3, 1e3)] = 0.8
    learning_rate: Annotated[float, Between(0.0, 10.0)] = 0.002
    warmup: Annotated[int, Between(1, 1e6)] = 5
    rounds: Annotated[int, Between(1, 1e6)] = 40
    ema: Annotated[float, Between(0.0, 0.9999)] = 0.9

    def __post_init__(self) -> None:
        check_settings(self, "pyramid")

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
        wanted = values.get("octaves", 0)
        octaves = _most_octaves(image, _BASE) if wanted is None else wanted
        config = from_settings(cls, "pyramid", {**values, "octaves": octaves})
        if wanted is None and not octaves:
            raise _too_many(None, image)
        config.check(image)
        if wanted is None and (side := min(config.base_shape(image)[1:])) > _LARGEST_BASE:
            raise ConfigError(
                f"Images have {image[1]} x {image[2]} pixels, their base {side} a side.",
                "Import them with a --size like 128, 192 or 256, or set pyramid.octaves.",
            )
        return config

    def check(self, image: tuple[int, int, int]) -> None:
        """Refuse octaves that images (C, H, W) do not have.

        Raises
        ------
        ConfigError
            If their sides cannot be halved so often, or they are neither grey nor RGB.
        """
        if self.octaves > _most_octaves(image, _LEAST_BASE):
            raise _too_many(self.octaves, image)
        if self.octaves and image[0] not in (1, 3):
            raise ConfigError(
                f"The pyramid is for grey and RGB images, not for {image[0]} channels.",
                "Import the images as grey or RGB.",
            )

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


def _too_many(octaves: int | None, image: tuple[int, int, int]) -> ConfigError:
    most = _most_octaves(image, _LEAST_BASE)
    return ConfigError(
        f"pyramid.octaves is {octaves}, but images have {image[1]} x {image[2]} pixels.",
        f"At most {most} fit: the base needs even sides of {_LEAST_BASE} pixels at least.",
    )
