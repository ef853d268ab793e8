"""Annealed Hamiltonian Monte Carlo: a few trajectories at every noise level, from high to low."""

from __future__ import annotations

import torch

from dppm_model.score.model import Denoiser
from sampler.dynamics import flow_step, noise_levels
from sampler.hmc import State, hmc_step
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings
from sampler.solvers import SampleInfo, denoise_at


def annealed_hmc(
    model: Denoiser, y: torch.Tensor, noise: NoiseSource, settings: SamplerSettings
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images by HMC on p(x; sigma) for each sigma of the schedule.

    Between levels an image moves along the probability flow with the score already in hand; it
    ends as the denoised image of the last level. The step size is ``settings.step``·sigma, because
    sigma is the width of p(x; sigma) in directions in which the images do not vary. The momentum
    has unit mass at every level and is carried over to the next one.
    """
    levels = noise_levels(settings.sigma_max, settings.sigma_min, settings.levels, settings.rho)
    x = levels[0] * noise.normal(model.shape)
    momentum = noise.normal(model.shape)
    denoised = slope = torch.zeros_like(x)
    acceptance, divergences = [], 0
    for level, sigma in enumerate(levels):

        def force_at(at: torch.Tensor, sigma: float = sigma) -> torch.Tensor:
            return (denoise_at(model, at, sigma, y) - at) / sigma**2

        if level > 0:
            above = levels[level - 1]
            x = flow_step(x, denoised, slope, above, sigma)
        state = State(x, momentum, force_at(x))
        if level > 0:  # how D changed along the flow, for the next move
            slope = (x + sigma**2 * state.force - denoised) / (sigma - above)
        accepted = 0.0
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
            accepted += float(info.acceptance.mean())
            divergences += int(info.divergent.sum())
        acceptance.append(accepted / settings.iterations)
        x, momentum = state.x, state.momentum
        denoised = x + sigma**2 * state.force
    evaluations = len(levels) * (1 + settings.iterations * settings.steps)
    return denoised, SampleInfo(evaluations, tuple(acceptance), divergences)
