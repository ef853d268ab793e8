"""The binomial sampler is exact: by enumeration of all coins where small, by chi-square elsewhere.

False-alarm rate of each statistical check: 1e-6 (fixed seeds).
"""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from dppm_model.mechanism import binomial as module
from dppm_model.mechanism.binomial import BinomialMechanism, binomial
from dppm_model.mechanism.fair_binomial import FairBinomialTable, fair_binomial
from dppm_model.mechanism.secure_rng import SecureRNG
from tests.support.mutations import twin
from tests.support.seeded_rng import ScriptedRNG, SeededRNG, chi_square

LEVEL = 1e-6


class NibbleCoins(SecureRNG):
    """Words with scripted low bits: `fair_binomial` of n < 64 coins reads the low n of a word."""

    def __init__(self, values: tuple[int, ...]) -> None:
        super().__init__()
        self._values = list(values)

    def words(self, count: int) -> np.ndarray:
        return np.array([self._values.pop(0) for _ in range(count)], dtype=np.uint64)


@twin(
    "an answer whose coins tie with its probability is yes",
    "dppm_model.mechanism.binomial:binomial",
    lambda old: lambda m, p, coins: old(m, p + np.uint64(1), coins),
    only="[3]",
)
@pytest.mark.parametrize("p", range(8))
def test_every_coin_string_of_a_small_mechanism(p: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With probabilities over 2^3 and m = 2, all coin strings give exactly Bin(2, p/8)."""
    monkeypatch.setattr(module, "PROBABILITY_BITS", 3)
    law = np.zeros(3)
    for words in product(range(4), repeat=3):  # m = 2 coins at each of 3 levels
        tally = binomial(2, np.array([p], dtype=np.uint64), NibbleCoins(words))
        law[tally[0]] += 4.0**-3
    np.testing.assert_allclose(law, binom.pmf(range(3), 2, p / 8), atol=1e-15)


@twin(
    "ties of a table of fair coins are not resolved",
    "dppm_model.mechanism.fair_binomial:FairBinomialTable._resolve",
    lambda _: lambda self, *args: 0,
)
def test_every_uniform_of_a_half_table() -> None:
    """All 2^10 values of U with a 4-bit first comparison: ties are resolved exactly."""
    n, table = 10, FairBinomialTable(10, word_bits=4)
    counts = np.zeros(n + 1, dtype=int)
    for u in range(1 << n):
        first, rest = u >> 6, u & 63
        data = (first << 60).to_bytes(8, "little") + rest.to_bytes(8, "little")
        counts[table.draw(1, ScriptedRNG(data))[0]] += 1
    assert counts.tolist() == [math.comb(n, k) for k in range(n + 1)]


@pytest.mark.parametrize("n", [1, 5, 63, 64, 65, 1000, 16_384, 40_000])
def test_half_has_the_binomial_law(n: int) -> None:
    draws = fair_binomial(np.full(40_000, n), SeededRNG(n))
    counts = np.bincount(draws, minlength=n + 1)
    assert chi_square(counts, 40_000 * binom.pmf(np.arange(n + 1), n, 0.5)) > LEVEL


@pytest.mark.parametrize(("m", "p"), [(1, 0.3), (16, 0.55), (64, 0.46), (500, 0.5), (20_000, 0.51)])
def test_law_of_the_tally(m: int, p: float) -> None:
    draws = binomial(m, np.full(60_000, int(p * 2**32), dtype=np.uint64), SeededRNG((m, p)))
    counts = np.bincount(draws, minlength=m + 1)
    assert chi_square(counts, 60_000 * binom.pmf(np.arange(m + 1), m, p)) > LEVEL
    # The same check rejects a probability that is off by two per cent of one answer's spread.
    if m >= 16:
        assert (
            chi_square(counts, 60_000 * binom.pmf(np.arange(m + 1), m, p + 0.03 / m**0.5)) < LEVEL
        )


def _no_clamp(_: Any) -> Any:
    def numerators(self: Any, z: Any, unit: float) -> Any:
        p = 0.5 + z * (unit * self.truth_strength / self.range_)
        return (np.clip(p, 0, 1 - 2.0**-32) * 2.0**32).astype(np.uint64)

    return numerators


@twin(
    "coordinates are not clamped to the range",
    "dppm_model.mechanism.binomial:BinomialMechanism.numerators",
    _no_clamp,
)
def test_numerators_are_symmetric_clamped_and_inside_the_word() -> None:
    response = BinomialMechanism(range_=2.0, truth_strength=0.25, responses=4)
    p = response.numerators(np.array([-(10**12), -1000, 0, 1000, 10**12]), 1e-3)
    assert p.tolist() == [1 << 30, 3 << 29, 1 << 31, 5 << 29, 3 << 30]
