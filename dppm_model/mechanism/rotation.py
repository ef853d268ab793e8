"""The public rotation: random signs, then a Walsh-Hadamard transform, exactly in int64.

A record's clipped vector may sit on one coordinate; after the rotation it is spread evenly, so a
small range R holds it. The rotation is orthonormal for every choice of signs in {-1, +1}, so L2
sensitivity does not change (PRIVACY.md, Lemma 8). The site expands the signs from a public seed and
never accepts numbers from the server: a "sign" of 1000 would multiply the sensitivity by 1000.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from dppm_model.errors import PlanError

_T = TypeVar("_T", np.int64, np.float32, np.float64)
_LEAST_BLOCK = 1 << 10
_MOST_PADDING = 1 / 16


def public_words(purpose: bytes, seed: bytes, count: int) -> NDArray[np.uint64]:
    """Expand a public seed (any bytes: run, phase, round) to 64-bit words, the same everywhere."""
    key = hashlib.sha256(purpose + seed).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def hadamard(x: NDArray[_T]) -> NDArray[_T]:
    """Return the unnormalised Walsh-Hadamard transform of each row (a power of two long).

    H·H = length·I, so the transform is its own inverse up to that factor.
    """
    size = x.shape[-1]
    x = np.array(x, order="C")  # one copy; the butterflies below work in place
    h = 1
    while h < size:
        pairs = x.reshape(-1, 2, h)
        top, bottom = pairs[:, 0], pairs[:, 1]
        top += bottom
        bottom *= -2
        bottom += top
        h *= 2
    return x


@dataclass(frozen=True)
class Rotation:
    """Rotation of ``dimension`` coordinates in ``blocks`` interleaved blocks of ``block`` each.

    Coordinate j goes to block j mod ``blocks``: neighbouring coordinates (weights of one layer)
    have similar sizes, so interleaving gives every block the same share of the energy.
    """

    dimension: int
    block: int
    blocks: int

    @classmethod
    def of(cls, dimension: int) -> Rotation:
        """Choose the largest block size that pads by at most a sixteenth."""
        if dimension < 1:
            raise PlanError(
                f"phases[].dimension is {dimension}.", "A phase needs at least one coordinate."
            )
        block = 1 << (dimension - 1).bit_length()
        while block > _LEAST_BLOCK and -(-dimension // block) * block > dimension * (
            1 + _MOST_PADDING
        ):
            block //= 2
        return cls(dimension, block, -(-dimension // block))

    @property
    def padded(self) -> int:
        """D, the number of coordinates of a report."""
        return self.block * self.blocks

    def signs(self, seed: bytes) -> NDArray[np.int64]:
        """Expand a public seed to D signs in {-1, +1}."""
        bits = public_words(b"dppm rotation signs", seed, -(-self.padded // 64)).view(np.uint8)
        return 1 - 2 * np.unpackbits(bits, count=self.padded).astype(np.int64)

    def rotate(self, total: NDArray[_T], seed: bytes) -> NDArray[_T]:
        """Map vectors (..., dimension) to (..., D), longer by sqrt(block); integers exactly.

        Orthonormal up to that factor for all signs, as Lemma 8 requires.
        """
        z = np.zeros((*total.shape[:-1], self.padded), dtype=total.dtype)
        z[..., : self.dimension] = total
        z *= self.signs(seed).astype(total.dtype)
        blocks = z.reshape(*z.shape[:-1], self.block, self.blocks).swapaxes(-1, -2)
        return hadamard(blocks).reshape(z.shape)

    def unrotate(self, z: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
        """Apply the inverse (transpose) to an orthonormal estimate, (D,) -> (dimension,)."""
        x = hadamard(z.reshape(self.blocks, self.block)).T.ravel() / np.sqrt(self.block)
        estimate: NDArray[np.float64] = (x * self.signs(seed))[: self.dimension]
        return estimate
