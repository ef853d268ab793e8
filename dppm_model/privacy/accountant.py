"""Composition: from the mu of each round to the epsilon of a run, always from above.

By Theorem 4 (PRIVACY.md) T Poisson-sampled rounds of mu-Gaussian-DP cost what T steps of DP-SGD
with noise multiplier 1/mu cost, under add or remove one record (module `composition`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from dppm_model.errors import ConfigError, PlanError
from dppm_model.privacy.composition import Rounds, compose


@dataclass(frozen=True)
class RoundCost:
    """Equal rounds of one phase."""

    mu: float  # Gaussian-DP parameter of one unsampled round; infinite where nothing is protected
    sampling_rate: float  # q, the Poisson rate
    rounds: int  # T
    # eta of Theorem 3 for all these rounds together; it adds (1 + e^epsilon) eta to delta
    total_variation: float = 0.0
    # the cost of one round at delta = 0, or None if it has no pure epsilon
    pure_epsilon: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mu, bool) or not self.mu > 0:
            raise PlanError(f"mu is {self.mu}.", "A round's mu is above zero.")
        if isinstance(self.sampling_rate, bool) or not 0 < self.sampling_rate <= 1:
            raise PlanError(f"sampling_rate is {self.sampling_rate}.", "Give a rate in (0, 1].")
        whole = isinstance(self.rounds, int) and not isinstance(self.rounds, bool)
        if not whole or self.rounds < 0:
            raise PlanError(f"rounds is {self.rounds}.", "Give a whole number, at least 0.")
        if isinstance(self.total_variation, bool) or not 0 <= self.total_variation < 1:
            raise PlanError(
                f"total_variation is {self.total_variation}.", "Give a number in [0, 1)."
            )
        if self.pure_epsilon is not None and not self.pure_epsilon > 0:
            raise PlanError(f"pure_epsilon is {self.pure_epsilon}.", "Give a number above zero.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, which has no infinity: None stands for it."""
        return asdict(self) | {"mu": finite(self.mu)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> RoundCost:
        """Rebuild what `to_dict` returned."""
        return cls(**raw | {"mu": math.inf if raw["mu"] is None else raw["mu"]})


def finite(value: float) -> float | None:
    """Return a number for JSON; None for infinity."""
    return None if math.isinf(value) else value


def check_delta(delta: float) -> None:
    """Refuse a delta outside (0, 1)."""
    if isinstance(delta, bool) or not 0 < delta < 1:
        raise ConfigError(f"privacy.delta is {delta}.", "Give a number in (0, 1), below 1/records.")


def check_epsilon(epsilon: float) -> None:
    """Refuse an epsilon that is no finite number above zero."""
    if isinstance(epsilon, bool) or not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"privacy.epsilon is {epsilon}.", "Give a finite number above zero.")


def _gathered(costs: Sequence[RoundCost]) -> list[Rounds]:
    """Return (mu, q, T) with equal rounds together, in an order that is not the caller's.

    Rounds without sampling are one Gaussian mechanism: their mu^2 add up, exactly.
    """
    counts: dict[tuple[float, float], int] = {}
    for cost in costs:
        key = (cost.mu, cost.sampling_rate)
        counts[key] = counts.get(key, 0) + cost.rounds
    sampled = [(mu, q, T) for (mu, q), T in sorted(counts.items()) if q < 1 and T]
    full = math.fsum(T * mu**2 for (mu, q), T in sorted(counts.items()) if q == 1)
    return [*sampled, *([(math.sqrt(full), 1.0, 1)] if full else [])]


def epsilon(costs: Sequence[RoundCost], delta: float) -> float:
    """Return an upper bound on the epsilon of all rounds together, at ``delta`` (Theorem 4).

    Returns 0 for no rounds, infinity where the tails of Theorem 3 leave nothing of ``delta`` (or
    ``delta`` is so small, below about 1e-12, that float errors do). Raises ConfigError if delta is
    not in (0, 1).
    """
    check_delta(delta)
    if any(c.rounds and math.isinf(c.mu) for c in costs):
        return math.inf
    costs = sorted((c for c in costs if c.rounds), key=lambda c: (c.mu, c.sampling_rate, c.rounds))
    return min(_epsilon(tuple(costs), delta), pure(costs)) if costs else 0.0


def pure(costs: Sequence[RoundCost]) -> float:
    """Return the epsilon of all rounds together at delta = 0, the sum of theirs, or infinity."""
    return math.fsum(
        c.rounds * (math.inf if c.pure_epsilon is None else c.pure_epsilon) for c in costs
    )


@lru_cache(maxsize=4096)
def _epsilon(costs: tuple[RoundCost, ...], delta: float) -> float:
    """Find the least share of delta that pays for the tails, a fixed point, from below."""
    eta = math.fsum(c.total_variation for c in costs)
    composition = compose(_gathered(costs))
    share = 0.0
    while share < 1:
        found = composition.epsilon(delta * (1 - share))
        tails = _tails(eta, found)
        if tails <= share * delta:
            return found
        share = 1.01 * tails / delta
    return math.inf


def _tails(eta: float, epsilon: float) -> float:
    """Return what total variation eta adds to delta: (1 + e^epsilon) eta."""
    if not eta:
        return 0.0
    return (1 + math.exp(epsilon)) * eta if epsilon < 700 else math.inf


def delta(costs: Sequence[RoundCost], epsilon: float) -> float:
    """Return an upper bound on the delta of all rounds together, at ``epsilon`` >= 0.

    Raises ConfigError if epsilon is not a finite number, at least zero.
    """
    if epsilon != 0:
        check_epsilon(epsilon)
    costs = [c for c in costs if c.rounds]
    if pure(costs) <= epsilon:
        return 0.0
    if any(math.isinf(c.mu) for c in costs):
        return 1.0
    tails = _tails(math.fsum(c.total_variation for c in costs), epsilon)
    return min(1.0, compose(_gathered(costs)).delta(epsilon) + tails)
