"""Hamiltonian Monte Carlo on a density that is known only by its score: a ring in the plane.

    python examples/hmc_on_a_ring.py

The kernels have the shape of blackjax: `init` and `step`, states and infos as NamedTuples. The
Metropolis test needs energy differences, which `sampler.integrators` integrates from the scores
along each trajectory.
"""

import torch

from sampler.hmc import hmc
from sampler.noise import ImageNoise

RADIUS, WIDTH = 2.0, 0.2


def score(x: torch.Tensor) -> torch.Tensor:
    """Return grad log p(x) of p(x) ~ exp(-(|x| - RADIUS)² / (2 WIDTH²)); x is (n, 1, 1, 2)."""
    length = x.norm(dim=-1, keepdim=True)
    return (RADIUS - length) / WIDTH**2 * x / length


noise = ImageNoise(seed=0, names=[(0, chain) for chain in range(2000)])
kernel = hmc(score, step_size=0.15, num_integration_steps=10)
state = kernel.init(torch.tensor([RADIUS, 0.0]).expand(2000, 1, 1, 2), noise)
for _ in range(100):
    state, info = kernel.step(noise, state)

length = state.position.norm(dim=-1)
acceptance = float(info.acceptance_rate.mean())
# In the plane the radius r has the density r·exp(-(r - RADIUS)²/(2 WIDTH²)): mean R + W²/R.
print(f"radius {float(length.mean()):.3f} (expected {RADIUS + WIDTH**2 / RADIUS:.3f})")
print(f"centre {state.position.mean(dim=0).flatten().tolist()} (expected 0, 0)")
print(f"acceptance {acceptance:.2f}, divergences {int(info.is_divergent.sum())}")
