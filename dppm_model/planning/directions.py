"""Planning for `dppm_model.mechanism.directions`: how many directions, and how much truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import ConfigError
from dppm_model.mechanism.base import Mechanism, RoundSpec, View
from dppm_model.mechanism.directions import DirectionsMechanism, alignment
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.planning.base import Audit, Planner
from dppm_model.settings import Whole

_MOST_TRUTH = 0.999
_LEAST_TRUTH = 1e-7  # below, a record's answer is lost in the rounding of its probability
_AUDITED_NAMES = 2_000_000  # random names drawn at once


class DirectionsAudit(Audit[DirectionsMechanism]):
    """Games of units that name directions."""

    def places(self, mechanism: DirectionsMechanism, spec: RoundSpec) -> int:
        """Return K: a canary names a direction of its own."""
        del spec
        return mechanism.directions

    def canaries(
        self,
        mechanism: DirectionsMechanism,
        places: NDArray[np.int64],
        signs: NDArray[np.int64],
        spec: RoundSpec,
        view: View,
        seed: bytes,
        coins: SecureRNG,
    ) -> NDArray[np.float64]:
        """Play a round of units that name their places; ``signs`` have no meaning here."""
        del signs, seed
        counts = self._seen(mechanism, places, spec, view, coins)
        return (
            counts.astype(np.float64) - self._blanket(mechanism, spec, view)
        ) / mechanism.truth_strength

    def variance(self, mechanism: DirectionsMechanism, spec: RoundSpec, view: View) -> float:
        """Return the variance of a count, over theta^2."""
        return self._blanket(mechanism, spec, view) / mechanism.truth_strength**2

    def _blanket(self, mechanism: DirectionsMechanism, spec: RoundSpec, view: View) -> float:
        return mechanism.slots * spec.reports_in(view) / mechanism.directions

    def _seen(
        self,
        mechanism: DirectionsMechanism,
        names: NDArray[np.int64],
        spec: RoundSpec,
        view: View,
        coins: SecureRNG,
    ) -> NDArray[np.int64]:
        """Draw the counts in a view, (K,), if one site's units name ``names`` for certain."""
        nobody = np.zeros(0, np.int64)
        total = mechanism.counts(names, np.ones(len(names)), coins)
        for _ in range(spec.reports_in(view) - 1):
            total = total + mechanism.counts(nobody, np.zeros(0), coins)
        return total

    def one_round(
        self,
        mechanism: DirectionsMechanism,
        trials: int,
        spec: RoundSpec,
        view: View,
        coins: SecureRNG,
        *,
        randomized: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Play with a unit that names the first direction if it is sampled."""
        trials = max(200, min(trials, _AUDITED_NAMES // mechanism.slots))
        there = coins.bernoulli(spec.sampling_numerator, trials)
        if not randomized:
            return np.zeros(trials), there.astype(np.float64)
        first = np.zeros(1, dtype=np.int64)

        def scores(named: NDArray[np.bool_]) -> NDArray[np.float64]:
            rounds = (self._seen(mechanism, first[: int(n)], spec, view, coins) for n in named)
            return np.array([counts[0] for counts in rounds], dtype=np.float64)

        return scores(np.zeros_like(there)), scores(there)


class DirectionsPlanner(Planner):
    """How many directions, and how much truth."""

    name: Literal["directions"] = "directions"
    """Each record, or person, names one of K directions."""
    directions: Whole | None = None
    """K, a power of two; null: the one with the least error expected, for each phase."""
    slots: Whole | None = None
    """Answers of a site in a round; null: records/sites."""

    mechanism: ClassVar[type[Mechanism]] = DirectionsMechanism
    audit: ClassVar[Audit[DirectionsMechanism]] = DirectionsAudit()
    samples: ClassVar[bool] = False

    def check(self, view: View, calibrate: str) -> None:
        """Refuse a search for rounds or rate."""
        del view
        if calibrate != "noise":
            raise ConfigError(
                f"privacy.calibrate is {calibrate!r} with mechanism=directions.", "Use noise."
            )

    def answers(self, dimension: int) -> float:
        """Return 3/2: 3 tau a round."""
        del dimension
        return 1.5

    def choose(
        self, spec: RoundSpec, alignment: float, view: View, mu: float
    ) -> DirectionsMechanism:
        """Choose K and theta so that a round costs at most ``mu``, sampling included.

        Raises
        ------
        ConfigError
            If ``mechanism.directions`` is more than two a dimension, or mu so small that nothing
            could be told.
        """
        padded = spec.rotation.padded
        slots = self.slots or -(-spec.records // spec.sites)
        directions = self.directions or self._least_error(spec, alignment, slots, view, mu)
        if directions > 2 * padded:
            raise ConfigError(
                f"mechanism.directions is {directions}, there are {padded} dimensions.",
                "Give at most two a dimension, or null.",
            )

        def costs(theta: float) -> float:
            return DirectionsMechanism(directions, theta, slots).cost(view, spec).mu

        return DirectionsMechanism(directions, _most_truth(costs, mu), slots)

    def _least_error(
        self, spec: RoundSpec, aligned: float, slots: int, view: View, mu: float
    ) -> int:
        """Find the K with the least energy of noise and of naming one direction only."""
        seen, batch = slots * spec.reports_in(view), spec.divisor

        def error(directions: int) -> float:
            theta = min(mu * math.sqrt(seen / (directions - 1)) / spec.sampling_rate, _MOST_TRUTH)
            noise = slots * spec.sites / theta**2
            naming = batch / theta + (aligned * batch) ** 2
            return (noise + naming) / alignment(directions // 2, spec.rotation.padded) ** 2

        most = (2 * spec.rotation.padded).bit_length() - 1
        return min((1 << b for b in range(1, most + 1)), key=error)


def _most_truth(costs: Callable[[float], float], mu: float) -> float:
    """Find the largest theta that costs at most ``mu``, to a thousandth, by bisection."""
    low, high = _LEAST_TRUTH, _MOST_TRUTH
    if costs(low) > mu:
        raise ConfigError(
            f"The mechanism could answer truthfully with probability {low:g} at most.",
            "Raise privacy.epsilon or the phase's budget_fraction, or lower its rounds.",
        )
    if costs(high) <= mu:
        return high
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if costs(middle) <= mu else (low, middle)
    return low
