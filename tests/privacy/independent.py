"""A second accountant, written from the statements of the theorems and from nothing else.

It shares no code with `dppm_model.privacy`: slopes are direct sums over binomial probabilities, and
rounds compose by one exact contour integral instead of a discretised privacy-loss distribution.
Where the package certifies from above, this file computes the plain value. The theorems are those
of the proof behind PRIVACY.md: 1, the slope s of a site's report; 2, the slope s* of a sum;
3, tails; 4, sampling and rounds. Phi, phi: standard normal; lo, hi = 1/2 -+ theta.
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, exp, expm1, inf, log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, log_ndtr, logsumexp, ndtri, ndtri_exp
from scipy.stats import binom

Array = NDArray[np.float64]
Rounds = tuple[float, float, int]  # mu of an unsampled round, Poisson rate q, number of rounds T

ROUNDING = 2.0**-32  # an answer's probability is rounded to a multiple of this
BRUTE_FORCE = 1500  # up to this many answers in the sum all corners are looked at
SCAN = 24  # beyond it, about this many corners on an even grid, and some near both ends


def log_isoperimetric(log_t: Array) -> Array:
    """Return log I(t) = log phi(Phi^-1(t)) from log t, for t at most 1/2 (shape kept)."""
    z = ndtri_exp(log_t)
    return -(z**2) / 2 - log(2 * pi) / 2


def isoperimetric_with_lines(t: Array, tau: float) -> Array:
    """Return I_tau(t) of Theorem 3 for t at most 1/2: I, and below tau its tangent line at tau.

    I'(t) = -Phi^-1(t), so the line is I(tau) - Phi^-1(tau) (t - tau).
    """
    z = float(ndtri(tau))
    height = exp(-(z**2) / 2) / sqrt(2 * pi)
    inner = np.exp(-(ndtri(np.maximum(t, tau)) ** 2) / 2) / sqrt(2 * pi)
    return np.where(t < tau, height - z * (t - tau), inner)


def site_slope(m: int, theta: float) -> float:
    """Return s(m, theta) of Theorem 1, the largest of its m ratios.

    m P[Bin(m-1,hi)=k-1] is (k/hi) P[Bin(m,hi)=k]. A tail is its first probability times the sum
    of the products of successive quotients, which has no cancellation however small the tail is.
    """
    hi, k = 0.5 + theta, np.arange(m + 1)
    log_pmf = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1)
    log_pmf += k * np.log(hi) + (m - k) * np.log1p(-hi)
    upper, lower = np.ones(m + 2), np.ones(m + 2)  # tails over their first probability
    with np.errstate(over="ignore"):  # only on the large side, which is not used
        for i in range(m - 1, -1, -1):
            upper[i] = 1 + upper[i + 1] * (m - i) / (i + 1) * hi / (1 - hi)
        for i in range(1, m + 1):
            lower[i] = 1 + lower[i - 1] * i / (m - i + 1) * (1 - hi) / hi
    log_upper = log_pmf[1:] + np.log(upper[1 : m + 1])  # P[X >= k], k = 1..m
    log_lower = log_pmf[:-1] + np.log(lower[:m])  # P[X <= k-1]
    log_tail = np.minimum(np.minimum(log_upper, log_lower), -log(2))
    return float(np.exp((np.log(k[1:] / hi) + log_pmf[1:] - log_isoperimetric(log_tail)).max()))


def binomial_window(n: int, p: float, cut: float) -> Array:
    """Return the probabilities of Bin(n,p) near n p, shape (values,), less tails under `cut` each.

    Hoeffding (1963): P[X - np >= t] <= exp(-2 t^2 / n).
    """
    half = sqrt(n * log(1 / cut) / 2) + 1
    values = np.arange(max(0, int(n * p - half)), min(n, ceil(n * p + half)) + 1)
    return np.asarray(binom.pmf(values, n, p))


def corner_slope(answers: int, theta: float, tau: float, j: int) -> float:
    """Return the largest ratio of Theorems 2 and 3 at corner j, over all k and both p.

    Y = Bin(j,hi) + Bin(M-1-j,lo). The direct convolution of two windows adds only positive terms,
    so every probability, also in a tail of tau, has a small relative error.
    """
    lo, hi = 0.5 - theta, 0.5 + theta
    a = binomial_window(j, hi, tau * 1e-8)
    b = binomial_window(answers - 1 - j, lo, tau * 1e-8)
    pmf = np.convolve(a, b)  # P[Y = k-1]
    below = np.concatenate([[0.0], np.cumsum(pmf)[:-1]])  # P[Y < k-1]
    above = np.concatenate([np.cumsum(pmf[::-1])[:-1][::-1], [0.0]])  # P[Y > k-1]
    best = 0.0
    for p in (lo, hi):
        tail = np.minimum(above + p * pmf, below + (1 - p) * pmf)  # of Y + Bern(p) >= k, or not
        best = max(best, float((pmf / isoperimetric_with_lines(tail, tau)).max()))
    return best


def corners(answers: int) -> Iterable[int]:
    """Return the corners j to look at: all, or powers of two from both ends and an even grid."""
    last = answers - 1
    if answers <= BRUTE_FORCE:
        return range(last + 1)
    steps = [0, *(1 << i for i in range(0, last.bit_length() - 1, 2))]
    return sorted({*steps, *(last - j for j in steps), *range(0, last, last // SCAN), last})


def sum_slope(answers: int, theta: float, tau: float) -> float:
    """Return s*_tau(M, theta) of Theorems 2 and 3.

    Up to `BRUTE_FORCE` answers all corners are tried and the value is exact. Beyond, both outer
    corners and a scan are: a lower estimate of the maximum (the package certifies from above).
    """
    return max(corner_slope(answers, theta, tau, j) for j in corners(answers))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Return delta of N(0,1) against N(mu,1) (Dong, Roth, Su 2022, corollary 1)."""
    a, b = log_ndtr(-epsilon / mu + mu / 2), epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(-exp(a) * expm1(b - a))


class Loss:
    """Privacy loss of T draws of P = N(0,1) against Q = (1-q) N(0,1) + q N(mu,1), in one order.

    With M(s) = E exp(s L), L the whole loss under its numerator's law,

        delta(eps) = E (1 - exp(eps - L))_+ = 1/(2 pi i) int exp(-s eps) M(s) / (s (s+1)) ds

    along Re s = c, for every c > 0 (the inverse Laplace transform of 1/(s (s+1)) is 1 - exp(-x)).
    With c near the saddle point the integrand does not cancel, so the trapezoid rule gives a small
    relative error of delta. Gaussian rounds multiply M by exp(mu^2 s (s+1) / 2).
    """

    def __init__(self, rounds: Sequence[Rounds], add: bool, delta: float) -> None:
        self.rounds, self.add = rounds, add
        found = minimize_scalar(
            lambda u: (self.log_moment(exp(u)) - u - np.log1p(exp(u)) - log(delta)) / exp(u),
            bounds=(log(0.02), log(500)),
            method="bounded",
        )
        self.c = exp(found.x)
        middle = float(found.fun)  # a rough epsilon at this delta; far from it the sum cancels
        self.bracket = max(0.0, middle - 10 / self.c), middle + 10 / self.c
        self.log_scale = self.log_moment(self.c)
        self.s, self.values = self._contour()

    def tilted(self, mu: float, q: float, c: float) -> tuple[Array, Array]:
        """Return a round's loss on a grid of x and log(its law · exp(c loss) dx), shapes (x,)."""
        step = 0.01
        x = np.arange(-14 - c * mu, 14 + (c + 1) * mu, step)
        with np.errstate(divide="ignore"):
            ratio = np.logaddexp(np.log1p(-q), log(q) + mu * x - mu**2 / 2)  # log dQ/dP
        log_p = -(x**2) / 2 - log(2 * pi) / 2 + log(step)
        return (ratio, log_p + ratio + c * ratio) if self.add else (-ratio, log_p - c * ratio)

    def log_moment(self, c: float) -> float:
        total = 0.0
        for mu, q, count in self.rounds:
            if q == 1:
                total += count * mu**2 * c * (c + 1) / 2
            else:
                total += count * float(logsumexp(self.tilted(mu, q, c)[1]))
        return total

    def _contour(self) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        """Return points c + iy, y >= 0, and there the integrand at eps = 0 over M(c); shapes (y,).

        A step of 2 pi/P adds the curve at eps + P, eps - P, ...: P is many deviations of the loss.
        """
        c, gauss, variance, laws = self.c, 0.0, 0.0, []
        for mu, q, count in self.rounds:
            if q == 1:
                gauss += count * mu**2
                continue
            loss, weight = self.tilted(mu, q, c)
            weight = np.exp(weight - logsumexp(weight))
            laws.append((loss, weight, count))
            variance += count * float(weight @ loss**2 - (weight @ loss) ** 2)
        period = 60 * (sqrt(variance + gauss) + 1 / c) + 20 * max(mu for mu, _, _ in self.rounds)
        step, size, points, values = 2 * pi / period, 128, [], []
        for start in range(0, 100 * size, size):
            y = step * np.arange(start, start + size)
            s = c + 1j * y
            value = np.exp(gauss * (s * (s + 1) - c * (c + 1)) / 2) / (s * (s + 1))
            for loss, weight, count in laws:
                value = value * (np.exp(1j * np.outer(y, loss)) @ weight) ** count
            points, values = [*points, s], [*values, value * step / pi]
            if np.abs(value).max() < 1e-12 / (c * (c + 1)):
                break
        values[0][0] /= 2
        return np.concatenate(points), np.concatenate(values)

    def delta(self, epsilon: float) -> float:
        scale = exp(self.log_scale - self.c * epsilon)
        return scale * float((np.exp(-1j * self.s.imag * epsilon) * self.values).real.sum())


def solve(
    curve: Callable[[float], float], low: float, high: float, delta: float, eta: float
) -> float:
    """Return the least epsilon with curve(epsilon) + (1 + e^epsilon) eta = delta (Theorem 3)."""
    epsilon, before, left = 0.0, inf, delta
    while abs(epsilon - before) > 1e-9:
        before, goal = epsilon, left
        epsilon = brentq(lambda e, g: log(max(curve(e), 1e-300) / g), low, high, (goal,), 1e-10)
        if eta:
            left = delta - (1 + exp(epsilon)) * eta
        if left <= 0:
            raise ValueError("the tails alone cost more than delta")
    return epsilon


def compose(rounds: Sequence[Rounds], delta: float, eta: float = 0.0) -> float:
    """Return epsilon of all rounds: the larger of both orders, removing and adding the record."""
    if all(q == 1 for _, q, _ in rounds):
        mu = sqrt(sum(count * mu**2 for mu, _, count in rounds))
        high = mu**2 / 2 + mu * sqrt(-2 * log(delta)) + 1
        return solve(lambda e: gaussian_delta(e, mu), 0.0, high, delta, eta)
    losses = [Loss(rounds, add, delta) for add in (True, False)]
    return max(solve(loss.delta, *loss.bracket, delta, eta) for loss in losses)


def padded(dimension: int) -> int:
    """Return D: blocks of a power of two, halved until they pad by at most 1/16 or are 1024."""
    block = 1 << (dimension - 1).bit_length()
    while block > 1024 and -(-dimension // block) * block > dimension * (1 + 1 / 16):
        block //= 2
    return -(-dimension // block) * block


def mu_of(phase: dict[str, Any], view: str) -> float:
    """Return mu of one unsampled round of a phase of `dppm plan --json`, after its rounding."""
    theta, m, d = phase["truth_strength"], phase["responses"], padded(phase["dimension"])
    sensitivity = min(theta * phase["clip_norm"] / phase["range"], 2 * theta * sqrt(d))
    sensitivity += sqrt(d) * ROUNDING
    theta += ROUNDING / 2
    slope = site_slope(m, theta)
    if view == "secure_sum":
        slope = min(slope, m * sum_slope(phase["honest_sites"] * m, theta, phase["tail"]))
    return slope * sensitivity


def epsilon_of(plan: dict[str, Any], view: str) -> float:
    """Return epsilon of a plan (`dppm plan --json`) in view ``secure_sum`` or ``site``."""
    phases = plan["phases"]
    eta = 0.0
    if view == "secure_sum":
        eta = sum(2 * padded(p["dimension"]) * p["rounds"] * p["tail"] for p in phases)
    rounds = [(mu_of(p, view), p["sampling_rate"], p["rounds"]) for p in phases]
    return compose(rounds, plan["delta"], eta)
