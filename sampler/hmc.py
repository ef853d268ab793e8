"""Hamiltonian Monte Carlo for a score, with persistent momentum and a Metropolis test per image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sampler.integrators import ScoreFn, leapfrog
from sampler.kernels import MetropolisInfo, SamplingAlgorithm, choose, metropolis_test
from sampler.noise import NoiseSource


class HMCState(NamedTuple):
    """What the next step needs, (n, C, H, W) each; the last is the score at ``position``."""

    position: torch.Tensor
    momentum: torch.Tensor
    logdensity_grad: torch.Tensor


def hmc(
    score_fn: ScoreFn,
    step_size: float,
    num_integration_steps: int = 2,
    *,
    momentum_persistence: float = 0.0,
    metropolis: bool = True,
) -> SamplingAlgorithm:
    """Refresh the momentum in part, run a leapfrog trajectory, and accept its end or stay.

    Parameters
    ----------
    score_fn
        grad log p of the target.
    step_size, num_integration_steps
        Leapfrog step size (in units of x, unit mass) and number, which is even.
    momentum_persistence
        Share alpha of the old momentum in the refreshment alpha·p + sqrt(1 - alpha²)·xi, in [0, 1).
    metropolis
        False leaves the test out (unadjusted HMC); an energy that is not finite is still rejected.

    Notes
    -----
    On rejection the momentum is turned round: without that, partial refreshment would not leave the
    target invariant (Horowitz 1991, "A generalized guided Monte Carlo algorithm"). How the energy
    difference is known without a density: `sampler.integrators`.
    """

    def init(position: torch.Tensor, noise: NoiseSource) -> HMCState:
        momentum = noise.normal(tuple(position.shape[1:]))
        return HMCState(position, momentum, score_fn(position))

    def step(noise: NoiseSource, state: HMCState) -> tuple[HMCState, MetropolisInfo]:
        fresh = noise.normal(tuple(state.position.shape[1:]))
        momentum = refresh(state.momentum, fresh, momentum_persistence)
        end = leapfrog(
            state.position,
            momentum,
            state.logdensity_grad,
            score_fn,
            step_size,
            num_integration_steps,
        )
        info = metropolis_test(end.position, end.delta_energy, noise, adjust=metropolis)
        new = HMCState(
            choose(info.is_accepted, end.position, state.position),
            choose(info.is_accepted, end.momentum, -momentum),
            choose(info.is_accepted, end.logdensity_grad, state.logdensity_grad),
        )
        return new, info

    return SamplingAlgorithm(init, step)


def refresh(momentum: torch.Tensor, fresh: torch.Tensor, persistence: float) -> torch.Tensor:
    """Partial refreshment alpha·p + sqrt(1 - alpha²)·xi, which leaves N(0, I) as it is."""
    return torch.mul(fresh, math.sqrt(1 - persistence**2)).add_(momentum, alpha=persistence)
