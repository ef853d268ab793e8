"""Randomness of the samplers: counter-based, so an image's noise is a function of its name.

Image i of class c under seed s takes block b of its d-th draw from Philox4x32-10 (Salmon, Moraes,
Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") under the key s at the counter
(b, d, c, i). There is no state but d: neither the batch an image is in, nor the worker, nor the
order matters, and a whole batch is computed at once, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key each round
_ROUNDS = 10
_WORD = 0xFFFFFFFF


Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # int64, of one shape


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
        (class, index) of each image of the batch, each in [0, 2^32).
    device
        Where the draws are made, and wanted.
    """

    def __init__(
        self,
        seed: int,
        names: Sequence[tuple[int, int]],
        device: torch.device | str = "cpu",
    ) -> None:
        self._key = seed & _WORD, seed >> 32
        self._names = torch.tensor(names, dtype=torch.int64, device=device)
        self._draws = 0

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        """See `NoiseSource`; float32.

        By Box and Muller's method in float64: rounded to float32, the draws of a CPU and of a GPU
        are the same but for one in many millions.
        """
        size = math.prod(shape)
        words = self._words(-(-size // 4))
        uniform = [word.double().add_(0.5).mul_(2.0**-32) for word in words]
        draws = []
        for u, v in (uniform[:2], uniform[2:]):
            radius, angle = u.log_().mul_(-2).sqrt_(), v.mul_(2 * math.pi)
            draws += [angle.cos().mul_(radius).float(), angle.sin_().mul_(radius).float()]
        return torch.cat(draws, dim=1)[:, :size].reshape(-1, *shape)

    def uniform(self) -> torch.Tensor:
        """See `NoiseSource`."""
        high, low, *_ = self._words(1)
        bits = (high << 21) | (low >> 11)  # 53 of them
        return (bits + 1).double()[:, 0] * 2.0**-53

    def _words(self, count: int) -> Words:
        """Return the words of so many blocks of the next draw, (n, count) each."""
        n = len(self._names)
        block = torch.arange(count, device=self._names.device).expand(n, count)
        draw = torch.full_like(block, self._draws)
        label, index = (column[:, None].expand(n, count) for column in self._names.T)
        self._draws += 1
        return philox((block, draw, label, index), self._key)


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return the four words of Philox4x32-10 at each counter, in [0, 2^32), as those are.

    >>> [f"{int(word):08x}" for word in philox((torch.tensor(0),) * 4, (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    for i in range(_ROUNDS):
        k0, k1 = ((word + i * step) & _WORD for word, step in zip(key, _WEYL, strict=True))
        # The product of two words, modulo 2^64: int64 has its bits, if not its sign.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32).bitwise_and_(_WORD).bitwise_xor_(c1).bitwise_xor_(k0),
            second.bitwise_and_(_WORD),
            (first >> 32).bitwise_and_(_WORD).bitwise_xor_(c3).bitwise_xor_(k1),
            first.bitwise_and_(_WORD),
        )
    return c0, c1, c2, c3
