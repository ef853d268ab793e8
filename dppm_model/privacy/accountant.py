"""Composition: from the mu of each round to the epsilon of a run, always from above.

By Theorem 4 (PRIVACY.md) T Poisson-sampled rounds of mu-Gaussian-DP cost what T steps of DP-SGD
with noise multiplier 1/mu cost; `dp_accounting` composes them as a privacy loss distribution, under
add or remove one record, rounding pessimistically.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution as pld_module
from dp_accounting.rdp import RdpAccountant

from dppm_model.errors import ConfigError, PlanError

# Grid of privacy losses, as a share of the epsilon looked for. A coarser grid is faster and gives a
# larger epsilon: good enough to search with, while what is printed uses the finer one.
_GRID_SHARE = 1e-4
_SEARCH_SHARE = 4e-4
# Share of delta that pays for the tails of Theorem 3.
_TAIL_SHARE = 1e-3


@dataclass(frozen=True)
class RoundCost:
    """Equal rounds of one phase.

    Attributes
    ----------
    mu
        Gaussian-DP parameter of one unsampled round.
    sampling_rate
        q, the Poisson rate.
    rounds
        T.
    total_variation
        eta of Theorem 3 for all these rounds together; it adds (1 + e^epsilon) eta to delta.
    """

    mu: float
    sampling_rate: float
    rounds: int
    total_variation: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mu) and self.mu > 0):
            raise PlanError(f"mu is {self.mu}.", "A round's mu is finite and above zero.")
        if not 0 < self.sampling_rate <= 1:
            raise PlanError(f"sampling_rate is {self.sampling_rate}.", "Give a rate in (0, 1].")
        if isinstance(self.rounds, bool) or self.rounds < 0:
            raise PlanError(f"rounds is {self.rounds}.", "Give a whole number, at least 0.")
        if not 0 <= self.total_variation < 1:
            raise PlanError(
                f"total_variation is {self.total_variation}.", "Give a number in [0, 1)."
            )


def check_delta(delta: float) -> None:
    """Refuse a delta outside (0, 1)."""
    if isinstance(delta, bool) or not 0 < delta < 1:
        raise ConfigError(f"privacy.delta is {delta}.", "Give a number in (0, 1), below 1/records.")


def check_epsilon(epsilon: float) -> None:
    """Refuse an epsilon that is no finite number above zero."""
    if isinstance(epsilon, bool) or not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"privacy.epsilon is {epsilon}.", "Give a finite number above zero.")


@lru_cache(maxsize=512)
def _phase_pld(mu: float, q: float, rounds: int, grid: float) -> Any:
    one = pld_module.from_gaussian_mechanism(
        standard_deviation=1 / mu, sampling_prob=q, value_discretization_interval=grid
    )
    return one.self_compose(rounds) if rounds > 1 else one


def _pld(costs: Sequence[RoundCost], grid: float) -> Any:
    """Compose the phases, equal ones gathered, in an order that does not depend on the caller's."""
    counts: dict[tuple[float, float], int] = {}
    for cost in costs:
        key = (cost.mu, cost.sampling_rate)
        counts[key] = counts.get(key, 0) + cost.rounds
    total = None
    for (mu, q), rounds in sorted(counts.items()):
        if rounds:
            phase = _phase_pld(mu, q, rounds, grid)
            total = phase if total is None else total.compose(phase)
    return total


def _grid(epsilon: float, share: float) -> float:
    """Return a power of two, so that nearly equal budgets share their cached distributions."""
    return float(2.0 ** math.floor(math.log2(min(max(epsilon, 1e-3), 1e3) * share)))


def _rough_epsilon(costs: Sequence[RoundCost], delta: float) -> float:
    """Guess epsilon by the central limit theorem, to choose a grid; never shown to anybody."""
    mu2 = sum(
        c.rounds * c.sampling_rate**2 * math.expm1(min(c.mu**2, 30))
        if c.sampling_rate < 1
        else c.rounds * c.mu**2
        for c in costs
    )
    return mu2 / 2 + math.sqrt(2 * mu2 * math.log(1 / delta))


def epsilon(costs: Sequence[RoundCost], delta: float, *, grid_share: float = _GRID_SHARE) -> float:
    """Return an upper bound on the epsilon of all rounds together, at ``delta``.

    ``grid_share`` is the step of the privacy loss distribution over the epsilon looked for.

    Returns
    -------
    0 for no rounds, infinity where the tails of Theorem 3 alone pass ``delta``.

    Raises
    ------
    ConfigError
        If delta is not in (0, 1).
    """
    check_delta(delta)
    costs = tuple(c for c in costs if c.rounds)
    if not costs:
        return 0.0
    return _epsilon(
        tuple(sorted(costs, key=lambda c: (c.mu, c.sampling_rate, c.rounds))), delta, grid_share
    )


@lru_cache(maxsize=4096)
def _epsilon(costs: tuple[RoundCost, ...], delta: float, grid_share: float) -> float:
    eta = sum(c.total_variation for c in costs)
    distribution = _pld(costs, _grid(_rough_epsilon(costs, delta), grid_share))
    for share in (_TAIL_SHARE if eta else 0.0, 0.1, 0.5):
        found = float(distribution.get_epsilon_for_delta(delta * (1 - share)))
        if not eta or (found < 700 and (1 + math.exp(found)) * eta <= share * delta):
            return max(0.0, found)
    return math.inf


_total = epsilon  # for the functions below, whose parameter of that name is the target


def delta(costs: Sequence[RoundCost], epsilon: float) -> float:
    """Return an upper bound on the delta of all rounds together, at ``epsilon``."""
    costs = tuple(c for c in costs if c.rounds)
    if not costs:
        return 0.0
    eta = sum(c.total_variation for c in costs)
    tail = (1 + math.exp(min(epsilon, 700))) * eta if eta else 0.0
    found = _pld(costs, _grid(epsilon, _GRID_SHARE)).get_delta_for_epsilon(epsilon)
    return min(1.0, float(found) + tail)


def rdp_epsilon(costs: Sequence[RoundCost], delta: float) -> float:
    """Cross-check by Renyi DP, without the tails: an upper bound that is never the better one."""
    check_delta(delta)
    accountant = RdpAccountant(orders=range(2, 257))
    for cost in costs:
        event: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(1 / cost.mu)
        if cost.sampling_rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(cost.sampling_rate, event)
        accountant.compose(event, cost.rounds)
    return float(accountant.get_epsilon(delta))


def choose_tau(*, epsilon: float, delta: float, coordinates_times_rounds: int) -> float:
    """Return the largest power of ten with (1 + e^epsilon) 2 D T tau <= delta/1000 (PROOF §5)."""
    check_epsilon(epsilon)
    check_delta(delta)
    most = math.log10(delta * _TAIL_SHARE / (2 * coordinates_times_rounds))
    # log(1 + e^epsilon) without overflow
    exponent = most - (epsilon + math.log1p(math.exp(-epsilon))) / math.log(10)
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
    """Return the largest x with epsilon(costs_at(x)) <= ``epsilon``, to a relative ``tol``.

    The costs must grow with x. The answer is always a value that was tried and found within the
    target: a search that may overshoot is not a calibration.

    Raises
    ------
    PlanError
        If even ``low`` passes the target.
    """
    check_epsilon(epsilon)
    check_delta(delta)

    def fits(x: float) -> bool:
        return _total(costs_at(x), delta, grid_share=_SEARCH_SHARE) <= epsilon

    # A cheap guess first: the accountant is slow far away from the target.
    below, above = low, high
    while above > below * 1.01:
        middle = math.sqrt(below * above)
        guess = _rough_epsilon([c for c in costs_at(middle) if c.rounds], delta)
        below, above = (middle, above) if guess <= epsilon else (below, middle)
    above = below
    while not fits(below):
        if below <= low:
            raise PlanError(
                f"Even the noisiest plan passes epsilon = {epsilon} at delta = {delta}.",
                "Raise privacy.epsilon or privacy.delta, or ask for fewer rounds.",
            )
        above, below = below, max(low, below * 0.85)
    while above <= below or fits(above):
        if above >= high:
            return high
        below, above = above, min(high, above * 1.15)
    while above > below * (1 + tol):
        middle = math.sqrt(below * above)
        below, above = (middle, above) if fits(middle) else (below, middle)
    while _total(costs_at(below), delta) > epsilon:  # the finer grid has the last word
        below *= 1 - tol
    return below


def calibrate_whole(
    costs_at: Callable[[int], Sequence[RoundCost]], *, epsilon: float, delta: float, high: int
) -> int:
    """Return the largest whole number n in 0..high with epsilon(costs_at(n)) <= ``epsilon``."""
    check_epsilon(epsilon)
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if _total(costs_at(middle), delta) <= epsilon:
            low = middle
        else:
            high = middle - 1
    return low


def round_up(value: float, digits: int) -> float:
    """Round so that the printed digits are never below the value."""
    scale = 10.0**digits
    return math.ceil(value * scale - 1e-12 * abs(value) * scale) / scale
