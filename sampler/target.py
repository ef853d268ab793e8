"""The densities p(x; sigma | y) of a model, as the samplers see them, and what a sampler says.

A sampler is a function

    sample(model, y, noise, settings, *, denoise=True) -> (x, info)

y is (n,) int64; x is (n, C, H, W), in [-1, 1] up to small excursions (it is not clamped). Without
``denoise`` it still has the noise of the last level, from which another stage goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dppm_model.score.denoiser import Denoiser


@dataclass(frozen=True)
class SampleInfo:
    """What a sampler says of one batch.

    Attributes
    ----------
    evaluations
        Evaluations of the network for each image.
    acceptance
        Mean acceptance rate at each level, highest first; empty for what is no Markov chain.
    divergences
        Trajectories whose energy error was out of all proportion.
    """

    evaluations: int
    acceptance: tuple[float, ...] = ()
    divergences: int = 0


Sampler = Callable[..., tuple[torch.Tensor, SampleInfo]]  # see the module


class Target:
    """p(x; sigma | y), guided, for a batch of labels; counts its evaluations.

    Parameters
    ----------
    y
        (n,) labels.
    guidance
        The score is that of log p(x; sigma | y) + (guidance - 1) log p(y | x; sigma).
    """

    def __init__(self, model: Denoiser, y: torch.Tensor, guidance: float = 1.0) -> None:
        self._model, self._y, self._guidance = model, y, guidance
        self.evaluations = 0

    def score(self, sigma: float, x: torch.Tensor) -> torch.Tensor:
        """Return grad log p(x; sigma) = (D(x; sigma) - x)/sigma² (Karras et al. 2022, eq. 3)."""
        return (self.denoise(x, sigma) - x).div_(sigma**2)

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Return D(x; sigma), with one sigma for the whole batch, which a denoiser can see."""
        self.evaluations += 1
        sigmas = torch.full((1,), sigma, dtype=x.dtype, device=x.device).expand(len(x))
        denoised = self._model.denoise(x, sigmas, self._y)
        if self._guidance == 1 or self._model.classes == 1:
            return denoised
        return denoised + (self._guidance - 1) * self._model.class_shift(x, sigmas, self._y)
