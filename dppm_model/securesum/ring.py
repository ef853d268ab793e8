"""Vectors modulo 2^bits: masks from a key stream, and packing to exactly that many bits.

Arithmetic uses the smallest unsigned type that holds ``bits``; it wraps at a multiple of 2^bits, so
the low bits are always right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

Vector = NDArray[np.unsignedinteger]

_CHUNK = 1 << 16  # bytes: key stream and the part of the vector it is added to stay in the cache
_ZEROS = bytes(_CHUNK)


@dataclass(frozen=True)
class Ring:
    """Vectors of ``length`` whole numbers modulo 2^``bits``, 1 to 64 bits."""

    bits: int
    length: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The type of the arithmetic, little-endian on every machine."""
        width = next(w for w in (8, 16, 32, 64) if w >= self.bits)
        return np.dtype(f"<u{width // 8}")

    @property
    def packed_bytes(self) -> int:
        """Bytes of a packed vector: ``bits`` a number, each plane rounded up to a byte."""
        whole, rest = divmod(self.bits, 8)
        return whole * self.length + rest * -(-self.length // 8)

    def zeros(self) -> Vector:
        """Return the zero vector."""
        return np.zeros(self.length, self.dtype)

    def add_mask(self, vector: Vector, key: bytes, *, subtract: bool = False) -> None:
        """Add the mask of a key (32 bytes, used for one mask only) to ``vector``, in place.

        The mask is the ChaCha20 key stream: without the key, a masked vector is uniform and reveals
        nothing.
        """
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
        step = _CHUNK // self.dtype.itemsize
        buffer = bytearray(_CHUNK)
        mask = np.frombuffer(buffer, self.dtype)
        for start in range(0, self.length, step):
            part = vector[start : start + step]
            size = part.size * self.dtype.itemsize
            stream.update_into(_ZEROS[:size], buffer)
            if subtract:
                part -= mask[: part.size]
            else:
                part += mask[: part.size]

    def reduce(self, vector: Vector) -> Vector:
        """Return the low ``bits`` of every number."""
        return vector & self.dtype.type((1 << self.bits) - 1)

    def pack(self, vector: Vector) -> bytes:
        """Pack to `packed_bytes`: whole bytes as planes, lowest first, then single bits."""
        whole, rest = divmod(self.bits, 8)
        octets = np.ascontiguousarray(vector).view(np.uint8).reshape(self.length, -1)
        planes = [octets[:, i].tobytes() for i in range(whole)]
        planes += [np.packbits(octets[:, whole] >> bit & 1).tobytes() for bit in range(rest)]
        return b"".join(planes)

    def unpack(self, data: bytes) -> Vector:
        """Undo `pack`.

        Raises ValueError if the length is not `packed_bytes`.
        """
        if len(data) != self.packed_bytes:
            raise ValueError(f"{len(data)} bytes instead of {self.packed_bytes}")
        whole, rest = divmod(self.bits, 8)
        octets = np.zeros((self.length, self.dtype.itemsize), np.uint8)
        raw = np.frombuffer(data, np.uint8)
        for i in range(whole):
            octets[:, i] = raw[i * self.length : (i + 1) * self.length]
        plane = -(-self.length // 8)
        for bit in range(rest):
            start = whole * self.length + bit * plane
            octets[:, whole] |= np.unpackbits(raw[start : start + plane])[: self.length] << bit
        return octets.reshape(-1).view(self.dtype)
