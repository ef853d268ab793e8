"""Samplers: from a score model, labels and a source of noise to images. One signature for all.

    sample(model, y, noise, settings) -> (x, info)

x is (n, C, H, W) in [-1, 1] (not clamped), info a dictionary of figures per level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dppm_model.score.model import Denoiser
from sampler.dynamics import flow_step, noise_levels
from sampler.hmc import State, hmc_step
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings

Result = tuple[torch.Tensor, dict[str, Any]]
Sampler = Callable[[Denoiser, torch.Tensor, ImageNoise, SamplerSettings], Result]


def _denoise(model: Denoiser, x: torch.Tensor, sigma: float, y: torch.Tensor) -> torch.Tensor:
    return model.denoise(x, torch.full((len(x),), sigma), y)


def heun(model: Denoiser, y: torch.Tensor, noise: ImageNoise, settings: SamplerSettings) -> Result:
    """EDM's deterministic sampler (Karras et al. 2022, Algorithm 1)."""
    levels = noise_levels(settings.sigma_max, settings.sigma_min, settings.levels, settings.rho)
    x = levels[0] * noise.normal(model.shape)
    for sigma, lower in zip(levels, [*levels[1:], 0.0], strict=True):
        denoised = _denoise(model, x, sigma, y)
        slope = (x - denoised) / sigma
        moved = x + (lower - sigma) * slope
        if lower > 0:
            slope_there = (moved - _denoise(model, moved, lower, y)) / lower
            moved = x + (lower - sigma) * (slope + slope_there) / 2
        x = moved
    return x, {"sigma": levels, "evaluations": 2 * len(levels) - 1}


def annealed_hmc(
    model: Denoiser, y: torch.Tensor, noise: ImageNoise, settings: SamplerSettings
) -> Result:
    """Hamiltonian Monte Carlo at every noise level, from the highest to the lowest.

    Between levels the image moves along the probability flow with the force already in hand, and
    the last move is to the denoised image.
    """
    levels = noise_levels(settings.sigma_max, settings.sigma_min, settings.levels, settings.rho)
    x = levels[0] * noise.normal(model.shape)
    momentum = noise.normal(model.shape)
    acceptance, divergences = [], 0
    for sigma, lower in zip(levels, [*levels[1:], 0.0], strict=True):

        def force_at(at: torch.Tensor, sigma: float = sigma) -> torch.Tensor:
            return (_denoise(model, at, sigma, y) - at) / sigma**2

        state = State(x, momentum, force_at(x))
        level = []
        for _ in range(settings.iterations):
            state, info = hmc_step(
                state,
                force_at,
                noise,
                step=settings.step * sigma,
                steps=settings.steps,
                keep=settings.keep,
                metropolis=settings.metropolis,
            )
            level.append(float(info.acceptance.mean()))
            divergences += int(info.divergent.sum())
        acceptance.append(sum(level) / len(level))
        momentum = state.momentum
        x = flow_step(state.x, state.x + sigma**2 * state.force, sigma, lower)
    return x, {
        "sigma": levels,
        "acceptance": acceptance,
        "divergences": divergences,
        "evaluations": len(levels) * (1 + settings.iterations * settings.steps),
    }


SAMPLERS: dict[str, Sampler] = {"hmc": annealed_hmc, "heun": heun}
