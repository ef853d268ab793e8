"""From the outcome of a guessing game to a lower bound on epsilon, at 95 % confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

CONFIDENCE = 0.95
_SHARES = (0.005, 0.02, 0.1, 0.5, 1.0)  # of the canaries that the auditor dares to guess
_MOST = 40.0  # no game here could show more


@dataclass(frozen=True)
class Guesses:
    """Of ``made`` guesses about ``canaries`` records ``right`` were right; epsilon is the bound."""

    canaries: int
    made: int
    right: int
    epsilon: float


def p_value(canaries: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """Bound the probability of this many right guesses under (epsilon, delta)-DP.

    Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), theorem 5.2: right guesses are dominated by
    Bin(made, e^eps/(e^eps + 1)), up to a term in delta.
    """
    rate = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, made, rate))
    if right == 0:
        return 1.0
    i = np.arange(1, right + 1)
    alpha = float((np.cumsum(binom.pmf(right - i, made, rate)) / i).max())
    return min(tail + alpha * delta * 2 * canaries, 1.0)


def guessed_epsilon(
    included: NDArray[np.bool_], scores: NDArray[np.float64], delta: float
) -> Guesses:
    """Return the best bound over a few fixed numbers of guesses, at `CONFIDENCE` over all of them.

    ``included`` (n,) says which canaries were in, each by a fair coin of its own; ``scores`` (n,)
    are the auditor's evidence: the highest are guessed in, the lowest out.
    """
    order = np.argsort(scores)
    best = Guesses(len(scores), 0, 0, 0.0)
    for share in _SHARES:
        half = max(1, round(share * len(scores) / 2))
        right = int((~included[order[:half]]).sum() + included[order[-half:]].sum())
        low, high = 0.0, _MOST
        while high - low > 1e-3:
            middle = (low + high) / 2
            p = p_value(len(scores), 2 * half, right, middle, delta)
            low, high = (middle, high) if p < (1 - CONFIDENCE) / len(_SHARES) else (low, middle)
        if low > best.epsilon:
            best = Guesses(len(scores), 2 * half, right, low)
    return best


def told_apart(out: NDArray[np.float64], in_: NDArray[np.float64], delta: float) -> Guesses:
    """Return the bound from a statistic in two worlds, without and with the record, (n,) each.

    One half of the trials chooses the threshold, the other half is counted; the rates of false and
    of missed alarms get upper Clopper-Pearson limits (Kairouz et al. 2015, theorem 2.1).
    """
    half = len(out) // 2
    cuts = np.quantile(np.concatenate([out[:half], in_[:half]]), np.linspace(0.002, 0.998, 250))
    bounds = [
        _bound(int((out[:half] > t).sum()), int((in_[:half] <= t).sum()), half, delta) for t in cuts
    ]
    threshold, counted = cuts[int(np.argmax(bounds))], len(out) - half
    false, missed = int((out[half:] > threshold).sum()), int((in_[half:] <= threshold).sum())
    right = 2 * counted - false - missed
    return Guesses(2 * counted, 2 * counted, right, _bound(false, missed, counted, delta))


def _bound(false: int, missed: int, trials: int, delta: float) -> float:
    level = 1 - (1 - CONFIDENCE) / 2
    rates = [
        1.0 if k == trials else float(beta.ppf(level, k + 1, trials - k)) for k in (false, missed)
    ]
    bounds = [
        math.log((1 - delta - b) / a) for a, b in (rates, rates[::-1]) if 1 - delta - b > 0 < a
    ]
    return max([*bounds, 0.0])
