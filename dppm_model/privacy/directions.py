"""What a round of randomized response over directions costs, certified from above.

A slot's answer is uniform over K names, but for a share t of one name if it holds the record in
question (Poisson rate times truth). Every other slot is uniform with probability at least 1 - t,
whatever it holds: at least b of the M - 1 others in the sum are, but for a probability tau. Give
all that is not uniform away. What is left is a histogram of b + 1 uniform names, one of which is
replaced with probability t (the blanket of Balle et al. 2019). Only the count h of the record's
name tells anything, with likelihood ratio 1 - t + t K h/(b + 1), which grows with h. So the best
tests are thresholds, and mu is their largest slope (step 2 of the proof in PRIVACY.md).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log1p, ndtri_exp
from scipy.stats import binom

from dppm_model.errors import PlanError

Array = NDArray[np.float64]


def pure_epsilon(truth: float, directions: int) -> float:
    """Return the local epsilon of one round under add or remove: the largest |log ratio|."""
    _check(truth, directions, 1)
    return max(math.log1p(truth * (directions - 1)), -math.log1p(-truth))


@lru_cache(maxsize=4096)
def mu_directions(truth: float, directions: int, answers: int, tau: float) -> float:
    """Return mu of one round, from above, at a cost of tau in total variation.

    For k = 1..b + 1 the threshold {h >= k} has size g = P[Bin(b+1, 1/K) >= k] and power g + d,
    d = t (1 - 1/K) P[Bin(b, 1/K) = k - 1] exactly. Since I = phi(Phi^-1) is concave,
    Phi^-1(g + d) - Phi^-1(g), the integral of 1/I from g to g + d, is at most d over the smaller of
    I at both ends. Where d is not small against g, the difference itself is used.

    Parameters
    ----------
    truth
        t in (0, 1), Poisson rate times theta.
    directions
        K.
    answers
        M, slots of all honest sites in the sum (of one site, in the site view).

    Raises
    ------
    PlanError
        If an argument is out of its range.
    """
    _check(truth, directions, answers)
    blanket = 0
    if answers > 1:  # one less than the quantile, for its float error
        blanket = max(0, int(binom.ppf(tau * (1 - 1e-6), answers - 1, 1 - truth)) - 1)
    b, share = blanket, 1 / directions
    h = np.arange(b + 2, dtype=np.float64)
    choose = gammaln(b + 2.0) - gammaln(h + 1) - gammaln(b + 2.0 - h)
    log_pmf = choose + h * math.log(share) + (b + 1 - h) * log1p(-share)
    at_least = np.logaddexp.accumulate(log_pmf[::-1])[::-1][1:]  # log P[h >= k], k = 1..b + 1
    below = np.logaddexp.accumulate(log_pmf)[:-1]
    # P[Bin(b) = k - 1] = k/(b + 1) K P[Bin(b + 1) = k]
    log_d = log_pmf[1:] + np.log(h[1:] * (directions - 1) / (b + 1) * truth)
    upper = np.logaddexp(at_least, log_d)  # power
    missed = below + log1p(-np.exp(np.minimum(log_d - below, -1e-15)))  # 1 - power
    z, z_power = _quantile(at_least, below), _quantile(upper, missed)
    smaller = np.minimum(-(z**2), -(z_power**2)) / 2 - math.log(2 * math.pi) / 2
    slope = np.exp(log_d - smaller)
    gap = (z_power - z) * (1 + 1e-7) + 1e-10
    found = np.where(np.isfinite(gap), np.minimum(slope, gap), slope).max()
    return float(found) * (1 + 1e-7 + 1e-12 * b)


def _quantile(log_p: Array, log_rest: Array) -> Array:
    """Phi^-1(p) from the smaller of log p and log(1 - p)."""
    lower = ndtri_exp(np.minimum(log_p, -1e-300))
    found: Array = np.where(log_p < log_rest, lower, -ndtri_exp(np.minimum(log_rest, -1e-300)))
    return found


def _check(truth: float, directions: int, answers: int) -> None:
    if not 0 < truth < 1:
        raise PlanError(f"phases[].truth_strength is {truth}.", "Give a number in (0, 1).")
    if directions < 2 or answers < 1:
        raise PlanError(
            f"phases[].directions is {directions} with {answers} answers.",
            "Give at least two directions and one slot.",
        )
