"""From a target epsilon to the cost that a plan may have, for planners only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy.optimize import brentq

from dppm_model.errors import ConfigError, PlanError
from dppm_model.privacy.accountant import RoundCost, check_delta, check_epsilon
from dppm_model.privacy.accountant import epsilon as total

# Share of delta that pays for the tails of Theorem 3.
_TAIL_SHARE = 1e-3


def choose_tau(*, epsilon: float, delta: float, coordinates_times_rounds: float) -> float:
    """Return the largest power of ten with (1 + e^epsilon) 2 D T tau <= delta/1000 (Theorem 3).

    At most 1e-10, since larger ones gain nothing.

    Raises ConfigError if epsilon or delta is out of range, or epsilon so large that no float is
    small enough.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    if isinstance(coordinates_times_rounds, bool) or not coordinates_times_rounds >= 1:
        raise PlanError(
            f"Coordinates times rounds are {coordinates_times_rounds}.", "Give at least one."
        )
    most = math.log10(delta * _TAIL_SHARE / (2 * coordinates_times_rounds))
    # log(1 + e^epsilon) without overflow
    exponent = most - (epsilon + math.log1p(math.exp(-epsilon))) / math.log(10)
    if exponent < -280:
        raise ConfigError(
            f"privacy.epsilon is {epsilon}.", "The secure-sum view needs one below 500."
        )
    return float(10.0 ** min(-10, math.floor(exponent)))


def calibrate(
    costs_at: Callable[[float], Sequence[RoundCost]],
    *,
    epsilon: float,
    delta: float,
    low: float,
    high: float,
    tol: float = 1e-3,
) -> float:
    """Return the largest x in [low, high] with epsilon(costs_at(x)) <= ``epsilon``.

    The relative error is ``tol``, and never upwards: the answer is always a value whose cost was
    computed and met the target. The costs must grow with x, and 0 < low <= high.

    Raises PlanError if even ``low`` passes the target.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    if not 0 < low <= high:
        raise PlanError(f"The search is from {low} to {high}.", "Give 0 < low <= high.")

    def at(t: float) -> float:
        return high if t == 1 else low * (high / low) ** t

    def found(x: float) -> float:
        return total(costs_at(x), delta)

    def gap(t: float) -> float:
        return math.log(min(max(found(at(t)) / epsilon, 1e-9), 1e9))

    if found(low) > epsilon:
        raise PlanError(
            f"Even the noisiest plan passes epsilon = {epsilon} at delta = {delta}.",
            "Raise privacy.epsilon or privacy.delta, or ask for fewer rounds.",
        )
    if found(high) <= epsilon:
        return high
    x = at(brentq(gap, 0.0, 1.0, xtol=tol / 4 / math.log(high / low))) * (1 - tol / 2)
    while x > low and found(x) > epsilon:
        x *= 1 - tol / 2
    return max(x, low)


def calibrate_whole(
    costs_at: Callable[[int], Sequence[RoundCost]], *, epsilon: float, delta: float, high: int
) -> int:
    """Return the largest whole number n in 1..high with epsilon(costs_at(n)) <= ``epsilon``.

    It is 0 if there is none; costs_at(0) is never computed.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if total(costs_at(middle), delta) <= epsilon:
            low = middle
        else:
            high = middle - 1
    return low
