"""Exact coins: uniform bits from a cryptographic stream that the operating system keys.

Every secret random choice of a site (its sample, its answers) uses these bits and compares them as
integers, so the program has the probabilities of the proof. There is deliberately no way to pass a
seed: a report drawn twice from the same coins, or from coins that anyone else can replay, is not
randomized at all.
"""

from __future__ import annotations

import os
import secrets

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_ZEROS = bytes(1 << 20)  # encrypting zeros yields the key stream


class SecureRNG:
    """A stream of uniform bits: AES-256 in counter mode under a fresh key of the OS.

    The stream gets a new key whenever the process id changes: a forked child would otherwise answer
    with its parent's coins.
    """

    def __init__(self) -> None:
        self._pid = -1

    def _key(self) -> bytes:
        """Return the 32 secret bytes of a new stream."""
        return secrets.token_bytes(32)

    def _start(self) -> None:
        cipher = Cipher(algorithms.AES(self._key()), modes.CTR(bytes(16)))
        self._stream = cipher.encryptor()
        self._pid = os.getpid()

    def _bytes(self, count: int) -> bytearray:
        if self._pid != os.getpid():
            self._start()
        out = bytearray(count + 15)  # `update_into` asks for one block of slack
        view = memoryview(out)
        for start in range(0, count, len(_ZEROS)):
            size = min(len(_ZEROS), count - start)
            self._stream.update_into(_ZEROS[:size], view[start:])
        return out

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` independent uniform 64-bit words."""
        return np.frombuffer(self._bytes(8 * count), dtype="<u8", count=count)

    def bernoulli(self, numerator: int | NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
        """Return ``count`` independent flips, each true with probability numerator / 2^32.

        ``numerator`` (one for all, or one each) may be 2^32, which is always true.
        """
        words = np.frombuffer(self._bytes(4 * count), dtype="<u4", count=count)
        return words.astype(np.uint64) < np.asarray(numerator, dtype=np.uint64)

    def below(self, limit: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` independent uniform numbers in 0..limit - 1; a power of two from 2."""
        if limit < 2 or limit & (limit - 1):
            raise ValueError(f"{limit} is not a power of two, so its multiples do not fill a word")
        return (self.words(count) >> np.uint64(65 - limit.bit_length())).astype(np.int64)

    def seeds(self, count: int) -> NDArray[np.int64]:
        """Return ``count`` independent seeds of 63 uniform bits, one for a record's own draws."""
        return (self.words(count) >> np.uint64(1)).astype(np.int64)
