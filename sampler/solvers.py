"""The signature that all samplers share, and EDM's two solvers as yardsticks.

    sample(model, y, noise, settings, *, denoise=True) -> (x, info)

y is (n,) int64; x is (n, C, H, W), in [-1, 1] up to small excursions (it is not clamped). Without
``denoise`` it still has the noise of the last level, from which another stage goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from dppm_model.score.denoiser import Denoiser
from sampler.dynamics import noise_levels
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings


@dataclass(frozen=True)
class SampleInfo:
    """What a sampler says of one batch.

    Attributes
    ----------
    evaluations
        Evaluations of the network for each image.
    acceptance
        Mean acceptance probability at each level, highest first; empty without a Metropolis test.
    divergences
        Trajectories whose energy error was out of all proportion.
    """

    evaluations: int
    acceptance: tuple[float, ...] = ()
    divergences: int = 0


class Sampler(Protocol):
    """What all samplers are; see the module."""

    def __call__(
        self,
        model: Denoiser,
        y: torch.Tensor,
        noise: NoiseSource,
        settings: SamplerSettings,
        *,
        denoise: bool = True,
    ) -> tuple[torch.Tensor, SampleInfo]:
        """Draw images of the classes ``y``."""
        ...


def denoise_at(
    model: Denoiser, x: torch.Tensor, sigma: float, y: torch.Tensor, guidance: float
) -> torch.Tensor:
    """Return D(x; sigma, y), guided, with one sigma for the whole batch.

    (D - x)/sigma² is the gradient of log p(x; sigma | y) + (guidance - 1) log p(y | x; sigma).
    """
    sigmas = torch.full((len(x),), sigma, dtype=x.dtype)
    denoised = model.denoise(x, sigmas, y)
    if guidance == 1:
        return denoised
    return denoised + (guidance - 1) * model.class_shift(x, sigmas, y)


def heun(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Solve the probability flow by Heun's method (Karras et al. 2022, Algorithm 1)."""
    return _solve(model, y, noise, settings, 0.0, denoise)


def churned(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Heun's method with fresh noise before each step (Karras et al. 2022, Algorithm 2)."""
    return _solve(model, y, noise, settings, settings.S_churn, denoise)


def _solve(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    S_churn: float,
    denoise: bool,
) -> tuple[torch.Tensor, SampleInfo]:
    levels = noise_levels(settings.sigma_max, settings.sigma_min, settings.num_levels, settings.rho)
    most = min(S_churn / len(levels), math.sqrt(2) - 1)
    x = levels[0] * noise.normal(model.shape)
    ends = [*levels[1:], 0.0] if denoise else levels[1:]
    for sigma, lower in zip(levels, ends, strict=False):
        if most > 0 and settings.S_min <= sigma <= settings.S_max:
            raised = sigma * (1 + most)
            added = settings.S_noise * math.sqrt(raised**2 - sigma**2)
            x, sigma = x + added * noise.normal(model.shape), raised
        slope = (x - denoise_at(model, x, sigma, y, settings.guidance)) / sigma
        moved = x + (lower - sigma) * slope
        if lower > 0:
            there = denoise_at(model, moved, lower, y, settings.guidance)
            slope_there = (moved - there) / lower
            moved = x + (lower - sigma) * (slope + slope_there) / 2
        x = moved
    return x, SampleInfo(evaluations=2 * len(levels) - (1 if denoise else 2))
