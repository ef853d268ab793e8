"""How far repeated chains agree, and how many independent draws they are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

Draws = NDArray[np.float64]


def split_r_hat(draws: Draws) -> float:
    """Return R-hat of chains (m, n) cut into halves (Gelman et al. 2013, equation 11.4).

    1 for chains that agree; above 1.01, they have not mixed.
    """
    halves = _halves(draws)
    n = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean()
    between = n * halves.mean(axis=1).var(ddof=1)
    return float(np.sqrt((n - 1) / n + between / (n * within)))


def effective_draws(draws: Draws) -> float:
    """Return the effective sample size of chains (m, n), of the halves of each.

    m n/tau with tau = 1 + 2 sum of the autocorrelations of all chains together, cut by Geyer's
    initial monotone sequence (Vehtari et al. 2021, equations 10 and 11).
    """
    halves = _halves(draws)
    m, n = halves.shape
    centred = halves - halves.mean(axis=1, keepdims=True)
    size = next_fast_len(2 * n)
    power = np.abs(rfft(centred, size)) ** 2
    covariance = irfft(power, size)[:, :n].mean(axis=0) / n
    within = halves.var(axis=1, ddof=1).mean()
    total = within * (n - 1) / n + halves.mean(axis=1).var(ddof=1)
    correlation = 1 - (within - covariance * n / (n - 1)) / total
    correlation[0] = 1.0
    pairs = correlation[: n - n % 2].reshape(-1, 2).sum(axis=1)
    last = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
    monotone = np.minimum.accumulate(pairs[:last])
    tau = max(2 * float(monotone.sum()) - 1, 1 / np.log10(m * n))
    return float(m * n / tau)


def _halves(draws: Draws) -> Draws:
    m, n = draws.shape
    return draws[:, : n - n % 2].reshape(2 * m, n // 2)
