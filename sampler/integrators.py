"""Leapfrog, with the energy it gains, for targets of which only the score is known.

A score model gives g(x) = ∇ log p(x), not log p. A Metropolis test of a proposal needs

    ΔH = ΔU + ΔK,   U = -log p,   K(p) = |p|²/2,

and ΔU is a line integral of the score along any path from x_start to x_end:

    ΔU = U(x_end) - U(x_start) = -∫ g(x(t))·x'(t) dt.

A leapfrog trajectory knows g at each of its points, so this costs no further evaluation. Over two
steps, through x0, x1 and x2 at equal times, `simpson` puts a parabola through the points and one
through the scores, and integrates their product exactly:

    ΔU = -[(x1 - x0)·(3 g0 + 4 g1 - g2) + (x2 - x1)·(3 g2 + 4 g1 - g0)]/6.

On a straight path it is Simpson's rule. Its error is O(h⁵) for a pair of steps of size h, O(h⁴) for
a trajectory; leapfrog's own energy error, which the test shall correct, is O(h²).

The trapezoid rule along the path (Sjöberg et al. 2023, "MCMC-correction of score-based diffusion
models", along a straight line) would not do: for leapfrog it telescopes to a ΔH of
h²/8·(|g_end|² - |g_start|²) whatever U is. That is right for a Gaussian only, and misses a term as
large as the error to be corrected.

With the kinetic energy, in the momenta p1 and p2 half way of each step, all of first order cancels:

    ΔH = h/6·[p1·(g2 - g1) - p2·(g1 - g0)] + h²/8·(|g2|² - |g0|²),

ΔH changes its sign when the trajectory is run backwards, so the Metropolis ratio of a proposal and
of its reversal are each other's inverse. Where g is no gradient (a network need not be one) ΔH
depends on the path, and what the chain leaves invariant is only near to p.

Everything here is a pure function. Images are (n, C, H, W), figures of an image are (n,) float64.

>>> import torch
>>> score = lambda x: -(x**3)                        # U(x) = x⁴/4
>>> x = torch.tensor([1.0], dtype=torch.float64).reshape(1, 1, 1, 1)
>>> for steps in (10, 20):
...     end = leapfrog(x, torch.zeros_like(x), score(x), score, 1 / steps, steps)
...     true = float(end.position**4 / 4 - 1 / 4 + end.momentum**2 / 2)
...     print(f"{abs(float(end.delta_energy) - true):.1e}")
4.6e-06
2.9e-07
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

ScoreFn = Callable[[torch.Tensor], torch.Tensor]  # x (n, C, H, W) -> grad log p(x), likewise


class Trajectory(NamedTuple):
    """End of a trajectory.

    Attributes
    ----------
    position, momentum, logdensity_grad
        (n, C, H, W) at the end point.
    delta_energy
        (n,) H(end) - H(start).
    """

    position: torch.Tensor
    momentum: torch.Tensor
    logdensity_grad: torch.Tensor
    delta_energy: torch.Tensor


def leapfrog(
    position: torch.Tensor,
    momentum: torch.Tensor,
    logdensity_grad: torch.Tensor,
    score_fn: ScoreFn,
    step_size: float,
    num_integration_steps: int,
) -> Trajectory:
    """Kick, drift, kick with unit mass: reversible, volume preserving, order 2.

    Parameters
    ----------
    position, momentum, logdensity_grad
        The start, (n, C, H, W); ``logdensity_grad`` is ``score_fn(position)``, already in hand.
    step_size
        In units of ``position``.
    num_integration_steps
        An even number; each is one evaluation.
    """
    x, p, g = position, momentum, logdensity_grad
    delta_energy = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(num_integration_steps // 2):
        p1 = torch.add(p, g, alpha=step_size / 2)
        x = torch.add(x, p1, alpha=step_size)
        g1 = score_fn(x)
        p2 = torch.add(p1, g1, alpha=step_size)
        x = torch.add(x, p2, alpha=step_size)
        g2 = score_fn(x)
        p = torch.add(p2, g2, alpha=step_size / 2)
        bend = dot(p1, g2 - g1) - dot(p2, g1 - g)
        delta_energy += step_size / 6 * bend + step_size**2 / 8 * dot(g2 - g, g2 + g)
        g = g2
    return Trajectory(x, p, g, delta_energy)


def simpson(*points: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return U(x2) - U(x0), (n,), from three points and the scores there; see the module.

    Parameters
    ----------
    points
        (x, score at x) at three equally spaced times.
    """
    (x0, g0), (x1, g1), (x2, g2) = points
    first = dot(x1 - x0, 3 * g0 + 4 * g1 - g2)
    return -(first / 6) - dot(x2 - x1, 3 * g2 + 4 * g1 - g0) / 6


def delta_kinetic(momentum: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """K(new) - K(momentum) with K = |p|²/2, without cancellation: (n,)."""
    return dot(new - momentum, new + momentum) / 2


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product of each image with its partner: (n, C, H, W) twice -> (n,) float64."""
    return (a * b).flatten(1).sum(dim=1, dtype=torch.float64)
