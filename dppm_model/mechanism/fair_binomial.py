"""Exact draws of Bin(n, 1/2), the number of heads among n fair coins, for arrays of n.

Small n: mask a word of coins and count its bits. Large n: split into batches of 2^14 coins, each
drawn by inverting the exact cumulative distribution, which costs 64 coins instead of 16,384.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dppm_model.mechanism.secure_rng import SecureRNG

BATCH_BITS = 14
_ONE = np.uint64(1)


class FairBinomialTable:
    """Bin(n, 1/2) by inversion, exact.

    The cumulative distribution has denominator 2^n, so comparing it with an n-bit uniform U decides
    every draw. The first ``word_bits`` bits of U nearly always suffice; where they tie with an
    entry the remaining n - word_bits bits are drawn and compared too, in Python integers.

    ``n`` is the number of fair coins. ``word_bits`` is the length of the first comparison, at most
    64 and at most n; tests shorten it so that ties are common.
    """

    def __init__(self, n: int, word_bits: int = 64) -> None:
        self.n, self.word_bits = n, min(word_bits, n)
        self._cumulative: list[int] = []
        total, choose = 0, 1
        for k in range(n):
            total += choose
            self._cumulative.append(total)  # 2^n P[X <= k]
            choose = choose * (n - k) // (k + 1)
        rest = n - self.word_bits
        self._first = np.array([c >> rest for c in self._cumulative], dtype=np.uint64)

    def draw(self, count: int, coins: SecureRNG) -> NDArray[np.int64]:
        """Return ``count`` independent draws: X = #{k < n : 2^n P[X <= k] <= U}."""
        u = coins.words(count) >> np.uint64(64 - self.word_bits)
        low = np.searchsorted(self._first, u, side="left")
        high = np.searchsorted(self._first, u, side="right")
        for i in np.flatnonzero(low != high):
            low[i] += self._resolve(int(u[i]), int(low[i]), int(high[i]), coins)
        return low

    def _resolve(self, first: int, low: int, high: int, coins: SecureRNG) -> int:
        """Draw the rest of U, and count the entries of ``[low, high)`` up to U."""
        rest = self.n - self.word_bits
        words = coins.words((rest + 63) // 64)
        u = (first << rest) | (int.from_bytes(words.tobytes(), "little") & ((1 << rest) - 1))
        return sum(self._cumulative[k] <= u for k in range(low, high))


@lru_cache(maxsize=1)
def _batch_table() -> FairBinomialTable:
    return FairBinomialTable(1 << BATCH_BITS)


def fair_binomial(n: NDArray[np.int64], coins: SecureRNG) -> NDArray[np.int64]:
    """Draw Bin(n_i, 1/2) for every entry of ``n`` (non-negative), independently and exactly."""
    heads = np.bitwise_count(
        coins.words(n.size) & ((_ONE << (n & 63).astype(np.uint64)) - _ONE)
    ).astype(np.int64)
    words = (n >> 6) & ((1 << (BATCH_BITS - 6)) - 1)
    for w in range(int(words.max(initial=0))):
        heads += np.where(words > w, np.bitwise_count(coins.words(n.size)), 0)
    batches = n >> BATCH_BITS
    for b in range(int(batches.max(initial=0))):
        wanted = np.flatnonzero(batches > b)
        heads[wanted] += _batch_table().draw(wanted.size, coins)
    return heads
