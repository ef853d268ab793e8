"""Private denoising score matching: the settings of its rounds, and the noise that records draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from dppm_model.bounds import Between
from dppm_model.errors import ConfigError
from dppm_model.score.part import Part


@dataclass(frozen=True)
class DenoisingPart(Part):
    """A part with a network that private rounds train on denoising; all public settings.

    Attributes
    ----------
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
        super().__post_init__()
        if not self.sigma_low < self.sigma_high:
            raise ConfigError(
                f"{self.group}.sigma_low is {self.sigma_low}, sigma_high {self.sigma_high}.",
                "Give sigma_low below sigma_high.",
            )

    @property
    def sigmas(self) -> tuple[float, float]:
        """The least and the largest noise level of training."""
        return self.sigma_low, self.sigma_high


def draw_noise(
    seeds: torch.Tensor, size: tuple[int, ...], config: DenoisingPart
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw noise levels (n, K) and noise (n, K, *size) on the CPU, for each record from its seed.

    A record's levels are one from each of K strata, which lowers the variance.
    """
    k = config.draws
    u, noise = torch.empty(len(seeds), k), torch.empty(len(seeds), k, *size)
    for i, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        u[i] = torch.rand(k, generator=generator)
        noise[i] = torch.randn((k, *size), generator=generator)
    low, high = math.log(config.sigma_low), math.log(config.sigma_high)
    share = ((torch.arange(k) + u) / k) ** (1 / (1 + config.tilt))
    return torch.exp(low + (high - low) * share), noise
