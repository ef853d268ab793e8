"""From the highest noise level to the lowest: by a few transitions at each, or by EDM's solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from dppm_model.score.denoiser import Denoiser
from sampler.hmc import hmc
from sampler.integrators import ScoreFn
from sampler.kernels import MetropolisInfo, SamplingAlgorithm
from sampler.langevin import langevin
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings
from sampler.solvers import edm, flow_step, noise_levels
from sampler.target import SampleInfo, Target

# The kernel of a level, from its score and its step size.
KernelOf = Callable[[ScoreFn, float], SamplingAlgorithm]
# Called after each level with its sigma, the denoised images, and what its transitions said.
Watch = Callable[[float, torch.Tensor, list[MetropolisInfo]], None]


def annealed(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
    kernel_of: KernelOf | None = None,
    watch: Watch | None = None,
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images by HMC or Langevin dynamics on p(x; sigma) for each sigma of the schedule.

    Between levels an image moves along the probability flow with the score already in hand, and
    what else the kernel's state holds is carried over: of HMC the momentum, whose mass is one at
    every level. The step size is ``settings.step_size``·sigma, because sigma is the width of
    p(x; sigma) in directions in which the images do not vary.

    Parameters
    ----------
    kernel_of
        None: that of the settings.
    watch
        None: nobody.
    """
    kernel_of = kernel_of or kernel(settings)
    target = Target(model, y, settings.guidance)
    sigmas = noise_levels(settings.sigma_max, settings.sigma_min, settings.num_levels, settings.rho)
    x = sigmas[0] * noise.normal(model.shape)
    denoised = slope = torch.zeros_like(x)
    acceptance, divergences = [], 0
    factors = settings.step_sizes(math.prod(model.shape))
    for level, (sigma, factor) in enumerate(zip(sigmas, factors, strict=True)):
        score = partial(target.score, sigma)
        algorithm = kernel_of(score, factor * sigma)
        if level == 0:
            state = algorithm.init(x, noise)
        else:
            above = sigmas[level - 1]
            x = flow_step(state.position, denoised, slope, above, sigma)
            state = state._replace(position=x, logdensity_grad=score(x))
            # How D changed along the flow, for the next move.
            change = torch.add(x, state.logdensity_grad, alpha=sigma**2).sub_(denoised)
            slope = change.div_(sigma - above)
        infos, accepted = [], 0.0
        for _ in range(settings.transitions_per_level):
            state, info = algorithm.step(noise, state)
            accepted += float(info.acceptance_rate.mean())
            divergences += int(info.is_divergent.sum())
            if watch is not None:
                infos.append(info)
        acceptance.append(accepted / settings.transitions_per_level)
        denoised = torch.add(state.position, state.logdensity_grad, alpha=sigma**2)
        if watch is not None:
            watch(sigma, denoised, infos)
    end = denoised if denoise else state.position
    return end, SampleInfo(target.evaluations, tuple(acceptance), divergences)


def kernel(settings: SamplerSettings) -> KernelOf:
    """Return the kernel of ``hmc`` or ``langevin`` with these settings, but for the step size."""
    if settings.method == "langevin":
        return partial(langevin, metropolis=settings.metropolis)
    return partial(
        hmc,
        num_integration_steps=settings.num_integration_steps,
        momentum_persistence=settings.momentum_persistence,
        metropolis=settings.metropolis,
    )


def solved(
    model: Denoiser,
    y: torch.Tensor,
    noise: NoiseSource,
    settings: SamplerSettings,
    *,
    denoise: bool = True,
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images by Heun's method along the probability flow; ``churn`` adds fresh noise."""
    target = Target(model, y, settings.guidance)
    sigmas = noise_levels(settings.sigma_max, settings.sigma_min, settings.num_levels, settings.rho)
    ends = [*sigmas, 0.0] if denoise else sigmas
    churn = settings.S_churn if settings.method == "churn" else 0.0
    algorithm = edm(
        target.denoise,
        ends,
        S_churn=churn,
        S_min=settings.S_min,
        S_max=settings.S_max,
        S_noise=settings.S_noise,
    )
    state = algorithm.init(sigmas[0] * noise.normal(model.shape), noise)
    for _ in ends[1:]:
        state, _ = algorithm.step(noise, state)
    return state.position, SampleInfo(target.evaluations)
