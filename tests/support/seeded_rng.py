"""Replayable coins, for tests only: production code has no way to name a seed."""

import hashlib

import numpy as np

from dppm_model.mechanism.secure_rng import SecureRNG


class SeededRNG(SecureRNG):
    """The production stream under a fixed key."""

    def __init__(self, seed: object) -> None:
        super().__init__()
        self._seed = seed

    def _key(self) -> bytes:
        return hashlib.sha256(repr(self._seed).encode()).digest()


class ScriptedRNG(SecureRNG):
    """SecureRNG that are read from a given list of bits, to walk through every possible outcome."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def _bytes(self, count: int) -> bytearray:
        out = bytearray(self._data[:count].ljust(count, b"\0")) + bytearray(15)
        self._data = self._data[count:]
        return out


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """P-value of counts against expected counts, rare cells pooled."""
    from scipy.stats import chi2

    order = np.argsort(expected)
    observed, expected = observed[order], expected[order]
    start = int(np.searchsorted(np.cumsum(expected), 10.0))
    o = np.append(observed[: start + 1].sum(), observed[start + 1 :])
    e = np.append(expected[: start + 1].sum(), expected[start + 1 :])
    return float(chi2.sf(((o - e) ** 2 / e).sum(), len(e) - 1))
