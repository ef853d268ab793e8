"""Public constants of the residual network and of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from dppm_model.errors import ConfigError
from dppm_model.score.settings import from_settings

Kind = Literal["conv", "dct_mlp"]


@dataclass(frozen=True)
class ResidualConfig:
    """Constants of the ``score`` phase; all public, none taken from private data.

    Attributes
    ----------
    network
        ``conv`` or ``dct_mlp``; see `dppm_model.score.networks`.
    band
        Side of the block of lowest frequencies that the network sees and corrects.
    fold
        ``conv`` only: fold × fold pixels of the band become the channels of one place.
    channels, blocks
        Channels (or hidden units), and the number of residual blocks.
    draws
        K, noise levels drawn per record and round; their gradients are averaged before clipping.
    sigma_low, sigma_high
        Range of the noise levels in training.
    tilt
        ln sigma has density ~ (ln sigma - ln sigma_low)^tilt: 0 is uniform, more favours noise.
    clip_share
        The clip norm is this multiple of the median gradient norm on images of the closed form.
    learning_rate, warmup, rounds, ema
        Adam's rate; rounds it rises for; rounds over which it then falls along a cosine to a tenth;
        decay of the moving average of the weights, which is what the sampler uses.
    """

    network: Kind = "conv"
    band: int = 28
    fold: int = 4
    channels: int = 24
    blocks: int = 3
    draws: int = 1
    sigma_low: float = 0.1
    sigma_high: float = 3.0
    tilt: float = 0.5
    clip_share: float = 0.8
    learning_rate: float = 0.01
    warmup: int = 10
    rounds: int = 100
    ema: float = 0.95

    def __post_init__(self) -> None:
        if self.network not in get_args(Kind):
            raise ConfigError(
                f"residual.network is {self.network!r}.", f"Use {' or '.join(get_args(Kind))}."
            )
        for field in fields(self):
            value, name = getattr(self, field.name), f"residual.{field.name}"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if field.type == "int" and (not number or value != int(value) or value < 1):
                raise ConfigError(f"{name} is {value!r}.", "Give a whole number above zero.")
            if field.type == "float" and not (number and 0 <= value < math.inf):
                raise ConfigError(f"{name} is {value!r}.", "Give a number, zero or above.")
        if not 0 < self.sigma_low < self.sigma_high:
            raise ConfigError(
                f"residual.sigma_low is {self.sigma_low}, sigma_high {self.sigma_high}.",
                "Give 0 < sigma_low < sigma_high.",
            )
        if self.ema >= 1:
            raise ConfigError(f"residual.ema is {self.ema}.", "Give a number below one.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResidualConfig:
        """Build from a plain dictionary; missing keys take their defaults.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range.
        """
        return from_settings(cls, "residual", values)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that ``from_dict`` reads back."""
        return asdict(self)
