"""Langevin dynamics for a score: HMC with one leapfrog step and no memory of momentum."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sampler.integrators import ScoreFn, delta_kinetic, simpson
from sampler.kernels import MetropolisInfo, SamplingAlgorithm, choose, metropolis_test
from sampler.noise import NoiseSource


class LangevinState(NamedTuple):
    """What the next step needs, (n, C, H, W) each; the last is the score at ``position``."""

    position: torch.Tensor
    logdensity_grad: torch.Tensor


def langevin(score_fn: ScoreFn, step_size: float, *, metropolis: bool = True) -> SamplingAlgorithm:
    """Move by step_size²/2·score + step_size·xi, and with ``metropolis`` accept it or stay (MALA).

    Notes
    -----
    The proposal is a leapfrog step with fresh momentum, so its Metropolis-Hastings ratio is that
    of HMC (Neal 2011, section 5.2). Its energy needs the potential difference, which is Simpson's
    line integral over the straight way, with one more evaluation at its middle; unadjusted Langevin
    does without, and calls every energy difference zero.
    """

    def init(position: torch.Tensor, noise: NoiseSource) -> LangevinState:
        del noise
        return LangevinState(position, score_fn(position))

    def step(noise: NoiseSource, state: LangevinState) -> tuple[LangevinState, MetropolisInfo]:
        x, g = state
        momentum = noise.normal(tuple(x.shape[1:]))
        new_x = x + step_size * momentum + step_size**2 / 2 * g
        new_g = score_fn(new_x)
        if not metropolis:
            none = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            return LangevinState(new_x, new_g), metropolis_test(new_x, none, noise, adjust=False)
        middle = (x + new_x) / 2
        delta_energy = simpson((x, g), (middle, score_fn(middle)), (new_x, new_g))
        delta_energy += delta_kinetic(momentum, momentum + step_size / 2 * (g + new_g))
        info = metropolis_test(new_x, delta_energy, noise)
        return LangevinState(
            choose(info.is_accepted, new_x, x), choose(info.is_accepted, new_g, g)
        ), info

    return SamplingAlgorithm(init, step)
