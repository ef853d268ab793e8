"""Randomness of the samplers: one stream per image, so an image depends on nothing but its name.

Image i of class c under seed s has its own generator. Drawing for a batch draws from each image's
own stream in turn; hence neither the batch an image is in, nor the worker, nor the order matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class ImageNoise:
    """Normal and uniform draws for a batch of named images.

    Parameters
    ----------
    seed
        Seed of the whole run.
    names
        (class, index) of each image of the batch.
    """

    def __init__(self, seed: int, names: Sequence[tuple[int, int]]) -> None:
        self._streams = [np.random.default_rng([seed, *name]) for name in names]

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return (n, *shape) standard normal draws."""
        draws = [g.standard_normal(shape, dtype=np.float32) for g in self._streams]
        return torch.from_numpy(np.stack(draws))

    def uniform(self) -> torch.Tensor:
        """Return (n,) draws from (0, 1]."""
        return torch.tensor([1.0 - g.random() for g in self._streams])
