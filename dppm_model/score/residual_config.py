"""Public constants of the residual network and of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from dppm_model.errors import ConfigError
from dppm_model.score.settings import Between, check_settings, from_settings

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
    band: Annotated[int, Between(1, 256)] = 28
    fold: Annotated[int, Between(1, 64)] = 4
    channels: Annotated[int, Between(1, 4096)] = 24
    blocks: Annotated[int, Between(1, 64)] = 3
    draws: Annotated[int, Between(1, 256)] = 1
    sigma_low: Annotated[float, Between(1e-3, 100.0)] = 0.1
    sigma_high: Annotated[float, Between(1e-3, 100.0)] = 3.0
    tilt: Annotated[float, Between(0.0, 20.0)] = 0.5
    clip_share: Annotated[float, Between(1e-3, 1e3)] = 0.8
    learning_rate: Annotated[float, Between(0.0, 10.0)] = 0.01
    warmup: Annotated[int, Between(1, 1e6)] = 10
    rounds: Annotated[int, Between(1, 1e6)] = 100
    ema: Annotated[float, Between(0.0, 0.9999)] = 0.95

    def __post_init__(self) -> None:
        check_settings(self, "residual")
        if not self.sigma_low < self.sigma_high:
            raise ConfigError(
                f"residual.sigma_low is {self.sigma_low}, sigma_high {self.sigma_high}.",
                "Give sigma_low below sigma_high.",
            )

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
