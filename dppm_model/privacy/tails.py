"""Laws of sums of Bernoulli answers, with small *relative* error far into the tails.

A corner of Theorem 2 (PRIVACY.md) is Y = Bin(a, hi) + Bin(b, lo). Its probabilities are needed down
to 1e-26, where an FFT convolution (absolute error 1e-16) is worthless; here the two laws are cut
where they are negligible and convolved directly, a sum of positive terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """Probabilities of first, first + 1, …; what was cut off has mass at most ``cut``."""

    first: int
    pmf: Array
    cut: float


def binomial_pmf(n: int, p: float, ks: NDArray[np.int64]) -> Array:
    """Bin(n, p) at ``ks`` by log-gamma; relative error below 1e-9 for n up to 1e6."""
    k = ks.astype(np.float64)
    logs = gammaln(n + 1.0) - gammaln(k + 1) - gammaln(n - k + 1)
    result: Array = np.exp(logs + k * np.log(p) + (n - k) * np.log1p(-p))
    return result


def binomial(n: int, p: float, eta: float) -> Law:
    """Bin(n, p), cut by Hoeffding where each tail has mass at most ``eta``."""
    if n == 0:
        return Law(0, np.ones(1), 0.0)
    reach = np.sqrt(n * np.log(1 / eta) / 2)
    first, last = max(0, int(n * p - reach)), min(n, int(n * p + reach) + 1)
    return Law(first, binomial_pmf(n, p, np.arange(first, last + 1)), 2 * eta)


def convolve(x: Law, y: Law) -> Law:
    """Law of the sum of two independent variables."""
    return Law(x.first + y.first, np.convolve(x.pmf, y.pmf), x.cut + y.cut)
