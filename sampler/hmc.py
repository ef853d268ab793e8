"""Hamiltonian Monte Carlo at one noise level, with a Metropolis test for each image by itself."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sampler.dynamics import Force, leapfrog, per_image, refresh
from sampler.noise import ImageNoise

DIVERGENT = 1000.0  # an energy error beyond this is counted as a divergence, as is customary


class State(NamedTuple):
    """What the next step needs: position, momentum, and the force at the position."""

    x: torch.Tensor
    momentum: torch.Tensor
    force: torch.Tensor


class Info(NamedTuple):
    """What a person needs: (n,) acceptance probability, energy error, divergence."""

    acceptance: torch.Tensor
    energy_error: torch.Tensor
    divergent: torch.Tensor


def hmc_step(
    state: State,
    force_at: Force,
    noise: ImageNoise,
    *,
    step: float,
    steps: int,
    keep: float,
    metropolis: bool,
) -> tuple[State, Info]:
    """Refresh the momentum, run a trajectory, accept or stay.

    Parameters
    ----------
    step, steps
        Leapfrog step size (in units of x, unit mass) and number.
    keep
        Share of the old momentum in the refreshment, in [0, 1).
    metropolis
        False leaves the test out (unadjusted HMC); an energy that is not finite is still rejected.

    Notes
    -----
    On rejection the momentum is turned round; without that, partial refreshment would not leave
    the target invariant (Horowitz 1991). The test is per image: a test of the batch's sum would let
    good images pay for bad ones.
    """
    shape = tuple(state.x.shape[1:])
    momentum = refresh(state.momentum, noise.normal(shape), keep)
    path = leapfrog(state.x, momentum, state.force, force_at, step, steps)
    kinetic = (per_image(path.momentum**2) - per_image(momentum**2)) / 2
    error = path.rise + kinetic
    error = torch.where(torch.isfinite(error), error, torch.inf)
    acceptance = torch.exp(-error).clamp(max=1.0)
    accepted = noise.uniform() <= acceptance if metropolis else torch.isfinite(error)
    keep_new = accepted[:, None, None, None]
    new = State(
        torch.where(keep_new, path.x, state.x),
        torch.where(keep_new, path.momentum, -momentum),
        torch.where(keep_new, path.force, state.force),
    )
    return new, Info(acceptance, error, error > DIVERGENT)
