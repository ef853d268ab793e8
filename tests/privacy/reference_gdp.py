"""A second implementation of s and s*, from the formulas, with 120 digits, by brute force."""

from __future__ import annotations

from itertools import product

import mpmath as mp

mp.mp.dps = 120


def quantile(p: mp.mpf) -> mp.mpf:
    """Phi^-1."""
    return mp.sqrt(2) * mp.erfinv(2 * p - 1)


def density_at(p: mp.mpf) -> mp.mpf:
    """I(p) = phi(Phi^-1(p))."""
    return mp.npdf(quantile(p))


def tangent(g: mp.mpf, tau: mp.mpf) -> mp.mpf:
    """I_tau of Theorem 3."""
    if g >= tau:
        return density_at(g)
    return density_at(tau) - quantile(tau) * (g - tau)


def law(probabilities: list[mp.mpf]) -> list[mp.mpf]:
    """Law of the number of ones among independent answers, one after the other."""
    out = [mp.mpf(1)]
    for p in probabilities:
        out = [
            (out[k] if k < len(out) else 0) * (1 - p) + (out[k - 1] * p if k else 0)
            for k in range(len(out) + 1)
        ]
    return out


def ratio(others: list[mp.mpf], moved: mp.mpf, tau: mp.mpf | None) -> mp.mpf:
    """Max over k of P[Y = k-1] / J(P[Y + Bern(moved) >= k])."""
    y = law(others)
    best = mp.mpf(0)
    for k in range(1, len(y) + 1):
        at_least = sum(y[k:], mp.mpf(0)) + moved * y[k - 1]
        below = sum(y[: k - 1], mp.mpf(0)) + (1 - moved) * y[k - 1]
        g = min(at_least, below)  # I is symmetric, and the smaller tail is the sharp one
        i = density_at(g) if tau is None else tangent(g, tau)
        best = max(best, y[k - 1] / i)
    return best


def site_slope(m: int, theta: float) -> mp.mpf:
    """Theorem 1."""
    hi = mp.mpf("0.5") + mp.mpf(theta)
    return m * ratio([hi] * (m - 1), hi, None)


def sum_slope(answers: int, theta: float, tau: float) -> mp.mpf:
    """Theorems 2 and 3, every corner."""
    lo, hi = mp.mpf("0.5") - mp.mpf(theta), mp.mpf("0.5") + mp.mpf(theta)
    return max(
        ratio([hi] * j + [lo] * (answers - 1 - j), moved, mp.mpf(tau))
        for j, moved in product(range(answers), (lo, hi))
    )
