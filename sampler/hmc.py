"""Hamiltonian Monte Carlo at one noise level, with a Metropolis test for each image by itself."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sampler.dynamics import Force, kinetic_rise, leapfrog, refresh
from sampler.noise import NoiseSource

DIVERGENT = 1000.0  # an energy error beyond this counts as a divergence, by convention


class State(NamedTuple):
    """What the next step needs: position, momentum and the force at the position."""

    x: torch.Tensor
    momentum: torch.Tensor
    force: torch.Tensor


class Info(NamedTuple):
    """What a person needs, (n,) each.

    Attributes
    ----------
    acceptance
        Probability that the Metropolis test accepts (also where it is switched off).
    energy_error
        H(end) - H(start); infinite where it is not a number.
    divergent
        Whether the energy error is beyond ``DIVERGENT``.
    """

    acceptance: torch.Tensor
    energy_error: torch.Tensor
    divergent: torch.Tensor


def hmc_step(
    state: State,
    force_at: Force,
    noise: NoiseSource,
    *,
    step: float,
    steps: int,
    keep: float,
    metropolis: bool,
) -> tuple[State, Info]:
    """Refresh the momentum, run a trajectory, and accept it or stay.

    Parameters
    ----------
    step, steps
        Leapfrog step size (in units of x, unit mass) and their even number.
    keep
        Share of the old momentum in the refreshment, in [0, 1).
    metropolis
        False leaves the test out (unadjusted HMC); an energy that is not finite is still rejected.

    Notes
    -----
    On rejection the momentum is turned round: without that, partial refreshment would not leave the
    target invariant (Horowitz 1991). The test is per image: one test of the summed energy of a
    batch would let good images pay for bad ones.
    """
    momentum = refresh(state.momentum, noise.normal(tuple(state.x.shape[1:])), keep)
    path = leapfrog(state.x, momentum, state.force, force_at, step, steps)
    error = path.rise + kinetic_rise(momentum, path.momentum)
    error = torch.where(torch.isfinite(error), error, torch.inf)
    acceptance = torch.exp(-error).clamp(max=1.0)
    accepted = noise.uniform() <= acceptance if metropolis else torch.isfinite(error)
    moves = accepted[:, None, None, None]
    new = State(
        torch.where(moves, path.x, state.x),
        torch.where(moves, path.momentum, -momentum),
        torch.where(moves, path.force, state.force),
    )
    return new, Info(acceptance, error, error > DIVERGENT)
