"""The cost of a round of randomized response over directions, certified from above.

A slot's answer is uniform over K names; if it holds the record in question, one name has an extra
share t (Poisson rate times truth). Every other slot is uniform with probability at least 1 - t, for
any content, so at least b of the M - 1 others in the sum are uniform, except with probability tau.
Give all other answers away. The rest is a histogram of b + 1 uniform names, one of which is
replaced with probability t (the blanket of Balle et al. 2019). Only the count h of the record's
name is informative, with likelihood ratio 1 - t + t K h/(b + 1), which grows with h. So the best
tests are thresholds, and mu is the largest shift of their quantiles (PRIVACY.md, Theorem 5).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from dppm_model.errors import PlanError
from dppm_model.privacy.gdp import Array, concave
from dppm_model.privacy.tails import binomial

_NO_TAIL = 1e-270  # negligible, and its products are above the least float


def pure_epsilon(truth: float, directions: int) -> float:
    """Return the local epsilon of one round under add or remove: the largest |log ratio|."""
    _check(truth, directions, 1)
    return max(math.log1p(truth * (directions - 1)), -math.log1p(-truth))


@lru_cache(maxsize=4096)
def mu_directions(truth: float, directions: int, answers: int, tau: float) -> float:
    """Return mu of one round, from above, at a cost of 3 tau in total variation (Theorem 5).

    The threshold {h >= k}, k = 1..b + 1, has size g = P[Bin(b+1, 1/K) >= k] and power g + d,
    d = t (1 - 1/K) P[Bin(b, 1/K) = k - 1] exactly. Its quantile shifts by the integral of
    1/I_tau from g to g + d, at most d over the smaller I_tau of both ends, since I_tau is concave.

    ``truth`` is t in (0, 1), Poisson rate times theta; ``directions`` is K; ``answers`` is M, the
    slots of all honest sites in the sum (of one site, in the site view). Raises PlanError if an
    argument is out of its range.
    """
    _check(truth, directions, answers)
    b = 0
    if answers > 1:  # one less than the quantile, for its float error
        b = max(0, int(binom.ppf(tau * (1 - 1e-6), answers - 1, 1 - truth)) - 1)
    # With more names than answers the outermost thresholds matter, where lines are far above I.
    return min(_shift(truth, directions, b, tail) for tail in (tau, _NO_TAIL))


def _shift(truth: float, directions: int, b: int, tau: float) -> float:
    """Return the largest shift of a threshold's quantile."""
    law = binomial(b + 1, 1 / directions, 1e-8 * tau / directions)
    k = np.arange(law.first, law.first + len(law.pmf))
    # P[Bin(b) = k - 1] = k/(b + 1) K P[Bin(b + 1) = k]; what was cut off is added everywhere
    d = (law.pmf * k / (b + 1) + 4 * law.cut) * (directions - 1) * truth
    at_least, below = np.cumsum(law.pmf[::-1])[::-1], np.cumsum(law.pmf) - law.pmf
    power, missed = at_least + d, np.maximum(below - d, 0.0)
    # The difference counts; the slope bounds it where floats cannot tell the quantiles apart.
    shift = _psi(power, missed, tau) - _psi(at_least, below, tau)
    ends = [concave(np.minimum(*pair), tau) for pair in ((at_least, below), (power, missed))]
    found = np.minimum(d / np.minimum(*ends), shift * (1 + 1e-7) + 1e-10).max()
    # The float error of the probabilities, as in `gdp.corner`.
    return float(found) * (1 + 1e-7 + 1e-13 * b)


def _psi(p: Array, rest: Array, tau: float) -> Array:
    """Psi, the integral of 1/I_tau from 1/2 to p: Phi^-1 inside [tau, 1 - tau] (Lemma 12).

    ``rest`` is 1 - p, which floats could not tell from 1 where p is small.
    """
    tail, z = np.minimum(p, rest), -float(ndtri(tau))
    height = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    inside = ndtri(np.maximum(tail, tau))
    beyond = np.log1p(-z * (tau - np.minimum(tail, tau)) / height) / z
    found: Array = np.where(p <= rest, 1.0, -1.0) * (inside + beyond)
    return found


def _check(truth: float, directions: int, answers: int) -> None:
    if not 0 < truth < 1:
        raise PlanError(f"phases[].truth_strength is {truth}.", "Give a number in (0, 1).")
    if directions < 2 or answers < 1:
        raise PlanError(
            f"phases[].directions is {directions} with {answers} answers.",
            "Give at least two directions and one slot.",
        )
