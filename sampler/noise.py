"""Randomness of the samplers: one stream per image, so an image's noise depends on its name alone.

Image i of class c under seed s has its own generator. A batch draws from the stream of each of its
images; hence neither the batch an image is in, nor the worker, nor the order matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch


class NoiseSource(Protocol):
    """The draws that a sampler asks for, for a batch of n images."""

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return (n, *shape) independent standard normal draws."""
        ...

    def uniform(self) -> torch.Tensor:
        """Return (n,) independent draws from (0, 1], float64."""
        ...


class ImageNoise:
    """The noise source of named images.

    Parameters
    ----------
    seed
        Seed of the whole run, in [0, 2^63).
    names
        (class, index) of each image of the batch.
    """

    def __init__(self, seed: int, names: Sequence[tuple[int, int]]) -> None:
        # The spawn key keeps the name apart from the seed, however long the seed is.
        self._streams = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=name)) for name in names
        ]

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """See `NoiseSource`; float32."""
        draws = np.empty((len(self._streams), *shape), dtype=np.float32)
        for stream, draw in zip(self._streams, draws, strict=True):
            stream.standard_normal(out=draw, dtype=np.float32)
        return torch.from_numpy(draws)

    def uniform(self) -> torch.Tensor:
        """See `NoiseSource`."""
        draws = [1.0 - stream.random() for stream in self._streams]
        return torch.tensor(draws, dtype=torch.float64)
