"""Annealing: a few steps of a Markov chain at every noise level, from high to low."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dppm_model.score.denoiser import Denoiser
from sampler.dynamics import Force, flow_step, noise_levels
from sampler.hmc import Info, State, hmc_step
from sampler.langevin import langevin_step
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings
from sampler.solvers import SampleInfo, denoise_at

# One transition at a level: (state, force, noise, step size) -> (state, info).
Kernel = Callable[[State, Force, NoiseSource, float], tuple[State, Info]]
# Called after each level with its sigma, the denoised images, and what its transitions said.
Watch = Callable[[float, torch.Tensor, list[Info]], None]


def annealed_hmc(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images by HMC on p(x; sigma) for each sigma of the schedule.

    The momentum has unit mass at every level and is carried over to the next one.
    """
    return annealed(kernel_of(settings), model, y, noise, settings, denoise=denoise)


def annealed_langevin(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images by Langevin dynamics (Song and Ermon 2019), with a Metropolis test if asked."""
    return annealed(kernel_of(settings), model, y, noise, settings, denoise=denoise)


def kernel_of(settings: SamplerSettings) -> Kernel:
    """Return the transition of ``hmc`` or ``langevin`` with these settings."""
    if settings.method == "hmc":
        return partial(
            _hmc,
            steps=settings.num_integration_steps,
            keep=settings.momentum_persistence,
            metropolis=settings.metropolis,
        )
    return partial(_langevin, metropolis=settings.metropolis)


def _hmc(
    state: State, force_at: Force, noise: NoiseSource, step: float, **how: Any
) -> tuple[State, Info]:
    return hmc_step(state, force_at, noise, step=step, **how)


def _langevin(
    state: State, force_at: Force, noise: NoiseSource, step: float, **how: Any
) -> tuple[State, Info]:
    return langevin_step(state, force_at, noise, step=step, **how)


def annealed(
    kernel: Kernel,
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    watch: Watch = lambda _sigma, _denoised, _infos: None,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Run ``settings.transitions_per_level`` transitions at each level.

    Between levels an image moves along the probability flow with the score already in hand; it
    ends as the denoised image of the last level, or, without ``denoise``, as the noisy one. The
    step size is ``settings.step_size``·sigma, because sigma is the width of p(x; sigma) in
    directions in which the images do not vary.
    """
    levels = noise_levels(settings.sigma_max, settings.sigma_min, settings.num_levels, settings.rho)
    x = levels[0] * noise.normal(model.shape)
    momentum = noise.normal(model.shape)
    denoised = slope = torch.zeros_like(x)
    acceptance, divergences, evaluations = [], 0, 0

    def force_at(sigma: float, at: torch.Tensor) -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        return (denoise_at(model, at, sigma, y, settings.guidance) - at) / sigma**2

    for level, (sigma, factor) in enumerate(zip(levels, settings.step_sizes, strict=True)):
        force = partial(force_at, sigma)
        if level > 0:
            above = levels[level - 1]
            x = flow_step(x, denoised, slope, above, sigma)
        state = State(x, momentum, force(x))
        if level > 0:  # how D changed along the flow, for the next move
            slope = (x + sigma**2 * state.force - denoised) / (sigma - above)
        infos = []
        for _ in range(settings.transitions_per_level):
            state, info = kernel(state, force, noise, factor * sigma)
            infos.append(info)
        acceptance.append(sum(float(i.acceptance.mean()) for i in infos) / len(infos))
        divergences += sum(int(i.divergent.sum()) for i in infos)
        x, momentum = state.x, state.momentum
        denoised = x + sigma**2 * state.force
        watch(sigma, denoised, infos)
    return denoised if denoise else x, SampleInfo(evaluations, tuple(acceptance), divergences)
