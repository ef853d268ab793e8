"""The pieces of Hamiltonian dynamics on an image x at noise level sigma.

The target of a level is the density p(x; sigma) of noisy images; its potential is U = -log p, and
the network gives its force -grad U = (D(x; sigma) - x)/sigma^2 (Karras et al. 2022, equation 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

Force = Callable[[torch.Tensor], torch.Tensor]


class Path(NamedTuple):
    """End of a leapfrog trajectory, and the potential difference along it.

    Attributes
    ----------
    x, momentum, force
        (n, C, H, W) at the end point.
    rise
        (n,) U(end) - U(start), as the trapezoid line integral of -force along the path.
    """

    x: torch.Tensor
    momentum: torch.Tensor
    force: torch.Tensor
    rise: torch.Tensor


def noise_levels(sigma_max: float, sigma_min: float, levels: int, rho: float) -> list[float]:
    """EDM's schedule (Karras et al. 2022, equation 5), from sigma_max down to sigma_min."""
    if levels == 1:
        return [sigma_max]
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(top + i / (levels - 1) * (bottom - top)) ** rho for i in range(levels)]


def per_image(x: torch.Tensor) -> torch.Tensor:
    """Sum each image's entries: (n, C, H, W) -> (n,)."""
    return x.flatten(1).sum(dim=1)


def leapfrog(
    x: torch.Tensor,
    momentum: torch.Tensor,
    force: torch.Tensor,
    force_at: Force,
    step: float,
    steps: int,
) -> Path:
    """Kick, drift, kick, ``steps`` times, with unit mass: reversible and volume preserving.

    The potential is not known, only its gradient; its difference along the path is summed as
    -(f_start + f_end)/2 · (x_end - x_start) over the steps (arXiv 2307.14012 does the same).
    """
    rise = torch.zeros(len(x))
    for _ in range(steps):
        momentum = momentum + step / 2 * force
        moved = x + step * momentum
        new_force = force_at(moved)
        momentum = momentum + step / 2 * new_force
        rise = rise - per_image((force + new_force) / 2 * (moved - x))
        x, force = moved, new_force
    return Path(x, momentum, force, rise)


def refresh(momentum: torch.Tensor, fresh: torch.Tensor, keep: float) -> torch.Tensor:
    """Partial refreshment: keep·p + sqrt(1 - keep^2)·xi leaves N(0, I) as it is."""
    return keep * momentum + math.sqrt(1 - keep**2) * fresh


def flow_step(x: torch.Tensor, denoised: torch.Tensor, sigma: float, lower: float) -> torch.Tensor:
    """Move along the probability flow dx/dsigma = (x - D)/sigma (equation 3), one Euler step."""
    return denoised + (lower / sigma) * (x - denoised)
