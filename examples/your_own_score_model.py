"""Sampling from a score model of your own: anything with a denoiser D(x; σ, y).

    python examples/your_own_score_model.py

This one knows images of four pixels with a known spread, so one can see whether annealed HMC keeps
it. A network of yours goes into `denoise` in the same way; `Denoiser` lists the members.
"""

import torch

from dppm_model.score.denoiser import Denoiser
from sampler.anneal import annealed
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings

SPREAD = torch.tensor([0.05, 0.2, 0.4, 0.8]).reshape(1, 2, 2)


class Gaussian:
    """Images x ~ N(0, SPREAD²), whose denoiser is exact: E[x | x + σ·noise]."""

    shape, classes, device = (1, 2, 2), 1, torch.device("cpu")

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Map x (n, 1, 2, 2), sigma (n,) and y (n,) to (n, 1, 2, 2)."""
        return x * SPREAD**2 / (SPREAD**2 + sigma.reshape(-1, 1, 1, 1) ** 2)

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What knowing the class adds to the denoised image: nothing, there is only one."""
        return torch.zeros_like(x)


model: Denoiser = Gaussian()
noise = ImageNoise(seed=0, names=[(0, index) for index in range(4000)])
images, info = annealed(model, torch.zeros(4000, dtype=torch.long), noise, SamplerSettings())
drawn = images.std(dim=0)
print("asked for", SPREAD.flatten().tolist())
print("drawn    ", [round(float(s), 3) for s in drawn.flatten()])
print(f"acceptance {min(info.acceptance):.3f}, {info.evaluations} evaluations an image")
