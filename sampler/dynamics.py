"""The pieces of Hamiltonian dynamics on an image x at noise level sigma.

The target of a level is the density p(x; sigma) of noisy images. Its potential is U = -log p, and
the network gives its force -grad U = (D(x; sigma) - x)/sigma² (Karras et al. 2022, equation 3).
Everything here is a pure function; images are (n, C, H, W), figures of an image are (n,) float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

Force = Callable[[torch.Tensor], torch.Tensor]


class Trajectory(NamedTuple):
    """End of a leapfrog trajectory, and the potential difference along it.

    Attributes
    ----------
    x, momentum, force
        (n, C, H, W) at the end point.
    rise
        (n,) U(end) - U(start), by a line integral of the force along the path.
    """

    x: torch.Tensor
    momentum: torch.Tensor
    force: torch.Tensor
    rise: torch.Tensor


def noise_levels(sigma_max: float, sigma_min: float, levels: int, rho: float) -> list[float]:
    """EDM's schedule (Karras et al. 2022, equation 5): ``levels`` >= 2 values, highest first."""
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(top + i / (levels - 1) * (bottom - top)) ** rho for i in range(levels)]


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product of each image with its partner: (n, C, H, W) twice -> (n,) float64."""
    return (a * b).flatten(1).sum(dim=1, dtype=torch.float64)


def kinetic_rise(momentum: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """K(new) - K(momentum) with K = |p|²/2, without cancellation: (n,)."""
    return dot(new - momentum, new + momentum) / 2


def leapfrog(
    x: torch.Tensor,
    momentum: torch.Tensor,
    force: torch.Tensor,
    force_at: Force,
    step: float,
    steps: int,
) -> Trajectory:
    """Kick, drift, kick, ``steps`` times with unit mass: reversible, volume preserving, order 2.

    Parameters
    ----------
    x, momentum, force
        The start; ``force`` is ``force_at(x)``, already in hand.
    step
        Step size, in units of x.
    steps
        An even number.

    Notes
    -----
    Only the gradient of U is known, so ``rise`` is a line integral, at no further evaluation:
    x and force are interpolated by parabolas over each two steps and integrated exactly (Simpson's
    rule), an error of order 4. The trapezoid rule would not do: for leapfrog it telescopes to a
    total energy error of step²/8·(|f_end|² - |f_start|²) whatever U is, which is right for a
    Gaussian only and misses a term as large as the error that the Metropolis test shall correct.
    """
    rise = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(steps // 2):
        x1, p1, f1 = _leap(x, momentum, force, force_at, step)
        x2, p2, f2 = _leap(x1, p1, f1, force_at, step)
        rise -= dot(x1 - x, 3 * force + 4 * f1 - f2) / 6
        rise -= dot(x2 - x1, 3 * f2 + 4 * f1 - force) / 6
        x, momentum, force = x2, p2, f2
    return Trajectory(x, momentum, force, rise)


def _leap(
    x: torch.Tensor, momentum: torch.Tensor, force: torch.Tensor, force_at: Force, step: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One kick-drift-kick."""
    momentum = torch.add(momentum, force, alpha=step / 2)
    x = torch.add(x, momentum, alpha=step)
    force = force_at(x)
    return x, torch.add(momentum, force, alpha=step / 2), force


def refresh(momentum: torch.Tensor, fresh: torch.Tensor, keep: float) -> torch.Tensor:
    """Partial refreshment keep·p + sqrt(1 - keep²)·xi, which leaves N(0, I) as it is."""
    return keep * momentum + math.sqrt(1 - keep**2) * fresh


def flow_step(
    x: torch.Tensor, denoised: torch.Tensor, slope: torch.Tensor, sigma: float, lower: float
) -> torch.Tensor:
    """Move from sigma to ``lower`` > 0 along the probability flow dx/dsigma = (x - D)/sigma.

    Karras et al. 2022, equation 3, solved exactly for D that is linear in sigma with ``slope``
    dD/dsigma. With ``slope`` zero it is Euler's step, which leaves the images with too little
    variance; a slope from the step before costs no evaluation (Lu et al. 2022, DPM-Solver++(2M)).
    """
    ratio = lower / sigma
    bend = sigma - lower + lower * math.log(ratio)
    return denoised + ratio * (x - denoised) - bend * slope
