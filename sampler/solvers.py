"""EDM's noise levels, its probability flow, and its two solvers of it (Karras et al. 2022).

Symbols are the paper's: sigma, rho, S_churn, S_min, S_max, S_noise. The solvers have the shape of
`sampler.kernels`: a step goes from one level to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from sampler.kernels import SamplingAlgorithm
from sampler.noise import NoiseSource

DenoiseFn = Callable[[torch.Tensor, float], torch.Tensor]  # (x, sigma) -> D(x; sigma)


def noise_levels(sigma_max: float, sigma_min: float, num_levels: int, rho: float) -> list[float]:
    """EDM's schedule (equation 5): ``num_levels`` >= 2 values, highest first."""
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(top + i / (num_levels - 1) * (bottom - top)) ** rho for i in range(num_levels)]


def flow_step(
    x: torch.Tensor, denoised: torch.Tensor, slope: torch.Tensor, sigma: float, lower: float
) -> torch.Tensor:
    """Move from sigma to ``lower`` > 0 along the probability flow dx/dsigma = (x - D)/sigma.

    Equation 3, solved exactly for D that is linear in sigma with ``slope`` dD/dsigma. With
    ``slope`` zero it is Euler's step, which leaves the images with too little variance; a slope
    from the step before costs no evaluation (Lu et al. 2022, DPM-Solver++(2M)).
    """
    ratio = lower / sigma
    bend = sigma - lower + lower * math.log(ratio)
    return torch.lerp(denoised, x, ratio).sub_(slope, alpha=bend)


class EDMState(NamedTuple):
    """An image (n, C, H, W) with the noise of a level, and the level's index, 0 the highest."""

    position: torch.Tensor
    level: int


class EDMInfo(NamedTuple):
    """The denoised image (n, C, H, W) at the start of the step, and evaluations it took."""

    denoised: torch.Tensor
    evaluations: int


def edm(
    denoise_fn: DenoiseFn,
    sigmas: Sequence[float],
    *,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
) -> SamplingAlgorithm:
    """Heun's method from level to level (Algorithm 2; without ``S_churn`` Algorithm 1).

    Parameters
    ----------
    denoise_fn
        D(x; sigma).
    sigmas
        Noise levels, highest first; the last may be 0. There are ``len(sigmas) - 1`` steps.
    S_churn, S_min, S_max, S_noise
        How much fresh noise is added over all levels, the levels between which it is, and a factor
        of it.
    """
    levels = sum(sigma > 0 for sigma in sigmas)
    gamma = min(S_churn / levels, math.sqrt(2) - 1)

    def init(position: torch.Tensor, noise: NoiseSource) -> EDMState:
        del noise
        return EDMState(position, 0)

    def step(noise: NoiseSource, state: EDMState) -> tuple[EDMState, EDMInfo]:
        x, sigma, lower = state.position, sigmas[state.level], sigmas[state.level + 1]
        if gamma > 0 and S_min <= sigma <= S_max:
            sigma_hat = sigma * (1 + gamma)
            added = S_noise * math.sqrt(sigma_hat**2 - sigma**2)
            x, sigma = x + added * noise.normal(tuple(x.shape[1:])), sigma_hat
        denoised = denoise_fn(x, sigma)
        d = (x - denoised) / sigma
        moved = x + (lower - sigma) * d
        if lower > 0:  # the second order, which needs D at the new level
            d_prime = (moved - denoise_fn(moved, lower)) / lower
            moved = x + (lower - sigma) * (d + d_prime) / 2
        return EDMState(moved, state.level + 1), EDMInfo(denoised, 2 if lower > 0 else 1)

    return SamplingAlgorithm(init, step)
