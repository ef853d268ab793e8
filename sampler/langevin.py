"""Langevin dynamics at one noise level: HMC with one leapfrog step and no memory of momentum."""

from __future__ import annotations

import torch

from sampler.dynamics import Force, dot, kinetic_rise
from sampler.hmc import DIVERGENT, Info, State
from sampler.noise import NoiseSource


def langevin_step(
    state: State, force_at: Force, noise: NoiseSource, *, step: float, metropolis: bool
) -> tuple[State, Info]:
    """Move by step²/2·force + step·xi, and with ``metropolis`` accept it or stay (MALA).

    The proposal is a leapfrog step with fresh momentum, so its Metropolis-Hastings ratio is that
    of HMC (Neal 2011, section 5.2). Its energy needs the potential difference, which is Simpson's
    line integral over the straight way, with one more evaluation at its middle; unadjusted Langevin
    does without.
    """
    momentum = noise.normal(tuple(state.x.shape[1:]))
    x = state.x + step * momentum + step**2 / 2 * state.force
    force = force_at(x)
    if not metropolis:
        moved = State(x, momentum, force)
        sure = torch.ones(len(x), dtype=torch.float64)
        return moved, Info(sure, 0 * sure, sure > DIVERGENT)
    end = momentum + step / 2 * (state.force + force)
    middle = force_at((state.x + x) / 2)
    rise = -dot(x - state.x, state.force + 4 * middle + force) / 6
    error = rise + kinetic_rise(momentum, end)
    error = torch.where(torch.isfinite(error), error, torch.inf)
    acceptance = torch.exp(-error).clamp(max=1.0)
    moves = (noise.uniform() <= acceptance)[:, None, None, None]
    new = State(torch.where(moves, x, state.x), momentum, torch.where(moves, force, state.force))
    return new, Info(acceptance, error, error > DIVERGENT)
