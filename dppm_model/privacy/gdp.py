"""The Gaussian-DP parameter mu of one unsampled round, certified: never below the truth.

Notation of PRIVACY.md and of its proof: I(t) = phi(Phi^-1(t)); an answer is "yes" with probability
in [lo, hi] = [1/2 - theta, 1/2 + theta]; m answers per coordinate and site; M = n m answers in the
sum of n honest sites.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri, ndtri_exp

from dppm_model.bounds import require_length, require_positive, require_whole
from dppm_model.errors import PlanError
from dppm_model.privacy.tails import Law, binomial, convolve

Array = NDArray[np.float64]

_PROBABILITY_STEP = 2.0**-32  # probabilities of answers are multiples of this


@lru_cache(maxsize=4096)
def site_slope(m: int, theta: float) -> float:
    """Return s(m, theta) of Theorem 1, from above.

    s = max over k = 1..m of m P[Bin(m-1, hi) = k-1] / I(P[Bin(m, hi) >= k]); Lemma 4 shows that the
    supremum over p is at p = hi. In logarithms, since tails go down to lo^m.

    Raises PlanError if m is not a whole number above zero, or theta is not in (0, 1/2).
    """
    require_whole("responses", m)
    _check_theta(theta)
    k = np.arange(0, m + 1, dtype=np.float64)
    log_hi, log_lo = math.log(0.5 + theta), math.log(0.5 - theta)
    log_pmf = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1) + k * log_hi + (m - k) * log_lo
    at_least = np.logaddexp.accumulate(log_pmf[::-1])[::-1][1:]  # P[X >= k], k = 1..m
    below = np.logaddexp.accumulate(log_pmf)[:-1]  # P[X < k]
    log_a = log_pmf[1:] + np.log(k[1:] / (0.5 + theta))  # m P[Bin(m-1) = k-1] = k P[X = k] / hi
    z = ndtri_exp(np.minimum(at_least, below))
    log_i = -(z**2) / 2 - math.log(2 * math.pi) / 2
    # Relative error of the log-gamma probabilities: 2e-13 at m = 200, 2e-9 at 1e6.
    return float(np.exp((log_a - log_i).max())) * (1 + 1e-8 + 1e-13 * m)


def concave(g: Array, tau: float) -> Array:
    """I_tau at tails g <= 1/2: I on [tau, 1/2], its tangent line at tau below (Lemma 12)."""
    z_tau = float(ndtri(tau))
    z = ndtri(np.maximum(g, tau))
    inside = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    result: Array = inside + np.minimum(g - tau, 0) * -z_tau
    return result


def slope_of_law(y: Law, p: float, tau: float) -> float:
    """Return max over k of P[Y = k-1] / I_tau(P[Y + Bern(p) >= k]) from above.

    Thresholds are the best tests (Lemma 1), and a slope of all of them bounds mu (Lemma 2).

    The mass that was cut off is added to the numerator and left out of the tails; I_tau grows with
    the smaller tail, so both raise the ratio. A last entry stands for every k that was cut off.
    """
    pmf = np.append(y.pmf, 0.0)
    below = np.append(0.0, np.cumsum(pmf[:-1]))  # P[Y <= k - 2], k - 1 = first, …
    at_least = np.append(np.cumsum(pmf[:0:-1])[::-1], 0.0)  # P[Y >= k]
    tail = np.minimum(at_least + p * pmf, below + (1 - p) * pmf)
    return float(((pmf + 4 * y.cut) / concave(tail, tau)).max())


def corner(a: int, b: int, theta: float, tau: float) -> float:
    """Bound the ratio with ``a`` other answers at hi and ``b`` at lo, the moved one at hi.

    The mirror image (yes for no) covers the moved one at lo. With a + b = M - 1 it is a corner,
    and corners are the worst (Lemma 5); with fewer it bounds, by Lemma 7, every corner that has at
    least these.
    """
    eta = 1e-8 * tau
    law = convolve(binomial(a, 0.5 + theta, eta), binomial(b, 0.5 - theta, eta))
    # Covers the float error of the probabilities (4e-9 at M = 1e6) and of their running sums.
    return slope_of_law(law, 0.5 + theta, tau) * (1 + 1e-7 + 1e-13 * (a + b))


@lru_cache(maxsize=4096)
def sum_slope(answers: int, theta: float, tau: float, tol: float = 1e-4) -> float:
    """Return s*_tau(M, theta) of Theorems 2 and 3, from above, by a sweep over all corners.

    A piece [a, b] of corners j (how many of the other answers are at hi) is bounded by one
    evaluation with a at hi, M - 1 - b at lo, and the rest left out. Pieces follow each other, each
    as wide as a bound (Lemma 7) within ``tol`` of the best corner allows; a corner by itself is
    exact.

    Raises PlanError if M is not a whole number above zero, theta or tau not in (0, 1/2), or tau
    below 1e-290.
    """
    require_whole("responses", answers)
    _check_theta(theta)
    if not 1e-290 <= tau < 0.5:  # below, the cuts of `corner` would underflow
        raise PlanError(f"phases[].tail is {tau}.", "Give a number from 1e-290 to below 1/2.")
    last = answers - 1
    best = max(corner(0, last, theta, tau), corner(last, 0, theta, tau))
    largest, a, width = best, 0, 1
    while a <= last:
        b = min(a + width - 1, last)
        bound = corner(a, last - b, theta, tau)
        spare = 1 - bound / (best * (1 + tol))
        # Leaving out w of M answers raises the ratio by about w/2M: the next width aims for nine
        # tenths of the spare part, or a tenth more than the excess.
        step = 2 * answers * spare * (0.9 if spare > 0 else 1.1)
        if spare < 0 and a < b:
            width = max(1, min(width - 1, int(width + step)))
            continue
        if a == b:
            best = max(best, bound)
        largest, a, width = max(largest, bound), b + 1, max(1, int(width + step))
    return max(best, largest)


def probability_sensitivity(
    *, clip_norm: float, range_: float, truth_strength: float, dimension: int
) -> float:
    """Return Delta: how far (L2) one sampled record moves the answer probabilities of a round.

    min(theta C/R, 2 theta sqrt(D)), and sqrt(D) 2^-32 for rounding each probability to a multiple
    of 2^-32 (half a step each way, and a hair for computing it in float64): Lemma 9.

    Raises PlanError if an argument is out of its range.
    """
    require_length("clip_norm", clip_norm)
    require_length("range", range_)
    _check_theta(truth_strength)
    require_whole("dimension", dimension)
    moved = min(truth_strength * clip_norm / range_, 2 * truth_strength * math.sqrt(dimension))
    return moved * (1 + 1e-12) + math.sqrt(dimension) * _PROBABILITY_STEP * 1.001


def mu_site(*, responses: int, truth_strength: float, sensitivity: float) -> float:
    """Theorem 1: mu of one unsampled round against anyone who sees one site's report.

    Raises PlanError if an argument is out of its range.
    """
    require_positive("sensitivity", sensitivity)
    return site_slope(responses, _widened(truth_strength)) * sensitivity


def mu_secure_sum(
    *, responses: int, truth_strength: float, sensitivity: float, honest_sites: int, tau: float
) -> float:
    """Theorem 2: mu of one unsampled round against anyone who sees the sum over honest sites.

    At the cost of total variation 2 D tau per round (Theorem 3). The smaller of two slopes holds:
    a sum tells no more than the report in it (Lemma 6).

    Raises PlanError if an argument is out of its range.
    """
    require_positive("sensitivity", sensitivity)
    require_whole("responses", responses)
    require_whole("honest_sites", honest_sites)
    theta = _widened(truth_strength)
    total = responses * sum_slope(responses * honest_sites, theta, tau)
    return min(total, site_slope(responses, theta)) * sensitivity


def _widened(theta: float) -> float:
    """Rounding may carry a probability half a step beyond 1/2 + theta."""
    _check_theta(theta)
    return theta + _PROBABILITY_STEP / 2


def _check_theta(theta: float) -> None:
    if isinstance(theta, bool) or not 0 < theta < 0.5:
        raise PlanError(f"phases[].truth_strength is {theta}.", "Give a number in (0, 1/2).")
