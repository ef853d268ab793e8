"""Randomized response over directions: the mechanism of the paper, made sound.

DPPM (Liu, Ge et al., arXiv 2305.10662) lets randomized response pick a projection direction; its
ancestor picks among neighbours that are private themselves. Here the alphabet is public: K signed
rows of the round's random rotation. Each sampled record names the direction nearest to its clipped
vector, tells that name with probability theta, and else one of the K uniformly: k-ary randomized
response (Warner 1965; Kairouz et al. 2014) with e^eps0 = 1 + K theta/(1 - theta). A site has a
public number of slots; those without a sampled record name uniformly too. The report counts names.

So a record moves nothing but the law of its own slot, from uniform to at most a share theta of one
name: privacy rests neither on clipping nor on arithmetic, and whether anybody was sampled does not
show. `dppm_model.privacy.directions` says what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr

from dppm_model.errors import ConfigError, PlanError, require_whole, require_within
from dppm_model.mechanism.base import (
    LEAST_PROBABILITY,
    PROBABILITY_BITS,
    Mechanism,
    Planner,
    RoundSpec,
    Vectors,
    View,
)
from dppm_model.mechanism.rotation import Rotation, public_words
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.directions import mu_directions, pure_epsilon
from dppm_model.settings import Whole

MOST_SLOTS = 1 << 24
_MOST_TRUTH = 0.999
_LEAST_TRUTH = 1e-7  # below, a record's answer is lost in the rounding of its probability
_SITE_TAIL = 1e-60  # the site view's epsilon may be large, and a tail costs e^epsilon of it
_CACHED_ELEMENTS = 1 << 18  # of rows that are rotated together: all passes stay in the cache
_AUDITED_NAMES = 2_000_000  # random names drawn at once


def alignment(rows: int, dimension: int) -> float:
    """Return kappa, the mean of max_r |u_r| over ``rows`` coordinates of a unit vector u.

    u is uniform on the sphere of R^dimension: max of normals over their independent norm.
    """
    x = np.linspace(1e-9, 12.0, 4801)
    below = np.exp(rows * np.log1p(-2 * np.exp(log_ndtr(-x))))  # P[|normal| < x]^rows
    norm = np.sqrt(2) * np.exp(gammaln((dimension + 1) / 2) - gammaln(dimension / 2))
    return float(np.trapezoid(1 - below, x) / norm)


@dataclass(frozen=True)
class DirectionsMechanism(Mechanism):
    """The public parameters of one round's names; see the module for the symbols.

    Attributes
    ----------
    directions
        K, a power of two from 2 to 2 D: K/2 rows of the rotation, with both signs.
    truth_strength
        theta in (0, 1), the probability that a record of norm C tells its direction.
    slots
        S, answers of a site in a round, whatever it holds; at least its number of records.
    """

    directions: int
    truth_strength: float
    slots: int

    name: ClassVar[str] = "directions"
    title: ClassVar[str] = "randomized response of each unit over directions"
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_whole("directions", self.directions)
        require_within("truth_strength", self.truth_strength, LEAST_PROBABILITY, 1.0)
        require_whole("slots", self.slots, most=MOST_SLOTS)
        if self.directions < 2 or self.directions & (self.directions - 1):
            raise PlanError(
                f"phases[].directions is {self.directions}.", "Give a power of two, at least 2."
            )
        if self.truth_strength >= 1:
            raise PlanError(f"phases[].truth_strength is {self.truth_strength}.", "Stay below 1.")

    def check(self, spec: RoundSpec) -> None:
        """Refuse more than two directions a dimension.

        Raises
        ------
        PlanError
            If there are.
        """
        if self.directions > 2 * spec.rotation.padded:
            raise PlanError(
                f"phases[].directions is {self.directions} in {spec.rotation.padded} dimensions.",
                "Give at most two a dimension.",
            )

    @property
    def most_units(self) -> int:
        """Return S: one more would push another out of its slot, and move two answers."""
        return self.slots

    def report_length(self, spec: RoundSpec) -> int:
        """Return K."""
        del spec
        return self.directions

    def max_count(self, spec: RoundSpec) -> int:
        """Return S."""
        del spec
        return self.slots

    def rows(self, rotation: Rotation, seed: bytes) -> NDArray[np.intp]:
        """Return the round's K/2 coordinates of the rotated space, a public random choice."""
        keys = public_words(b"dppm directions", seed, rotation.padded)
        return np.argsort(keys, kind="stable")[: self.directions // 2]

    def names(self, z: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Name the direction nearest to each rotated vector (n, D): 2 row, or 2 row + 1 for minus.

        Any function of the record and the public seed would do: privacy does not depend on it.
        """
        inner = z[:, rows]
        best = np.abs(inner).argmax(axis=1)
        negative = np.take_along_axis(inner, best[:, None], axis=1)[:, 0] < 0
        found: NDArray[np.int64] = 2 * best + negative
        return found

    def counts(
        self,
        names: NDArray[np.int64],
        lengths: NDArray[np.float64],
        coins: SecureRNG,
    ) -> NDArray[np.int64]:
        """Return how often each direction was named, (K,), S in all.

        Parameters
        ----------
        names
            (n,) of the sampled records, n <= S.
        lengths
            (n,) norms over C, at most 1: a short vector is told less often, so that the expected
            report is linear in it. That mixes its law with the uniform one, which reveals less.
        """
        answers = coins.below(self.directions, self.slots)
        limit = self.truth_strength * 2.0**PROBABILITY_BITS
        numerators = np.floor(np.clip(lengths, 0.0, 1.0) * limit).astype(np.uint64)
        truthful = np.flatnonzero(coins.bernoulli(numerators, len(names)))
        answers[truthful] = names[truthful]
        return np.bincount(answers, minlength=self.directions)

    def encode(
        self, vectors: Vectors, spec: RoundSpec, seed: bytes, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Let each unit name a direction, (K,): how often each was named."""
        rows = self.rows(spec.rotation, seed)
        step = max(1, _CACHED_ELEMENTS // spec.rotation.padded)

        def name(part: slice) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
            found, units = [], vectors.vectors(part)
            while few := list(islice(units, step)):
                together = torch.cat(few).numpy()
                lengths = np.linalg.norm(together, axis=1) / spec.grid.steps
                z = spec.rotation.rotate(together.astype(np.float32), seed)
                found.append((self.names(z, rows), lengths))
            return found

        pairs = [pair for part in vectors.map(name) for pair in part]
        names = np.concatenate([np.zeros(0, np.int64), *(names for names, _ in pairs)])
        lengths = np.concatenate([np.zeros(0), *(lengths for _, lengths in pairs)])
        return self.counts(names, lengths, coins)

    def decode(
        self, total: NDArray[np.int64], sites: int, spec: RoundSpec, seed: bytes
    ) -> NDArray[np.float64]:
        """Estimate the sum of the sampled units' clipped vectors.

        C/(kappa theta) (T_plus - T_minus) on the named rows, nothing on the others, rotated back.
        Over the random rotation it is unbiased for vectors that spread evenly.
        """
        del sites
        z = np.zeros(spec.rotation.padded)
        difference = (total[0::2] - total[1::2]).astype(np.float64)
        z[self.rows(spec.rotation, seed)] = difference * self._scale(spec)
        return spec.rotation.unrotate(z, seed)

    def variance(self, sites: int, spec: RoundSpec) -> float:
        """Return the noise variance of a coordinate, mean over all D: M scale^2/D."""
        return float(sites * self.slots * self._scale(spec) ** 2 / spec.rotation.padded)

    def _scale(self, spec: RoundSpec) -> float:
        kappa = alignment(self.directions // 2, spec.rotation.padded)
        return spec.clip_norm / (kappa * self.truth_strength)

    def cost(self, view: View, spec: RoundSpec) -> RoundCost:
        """Theorem 5: the blanket of all slots seen; sampling is part of what is randomized."""
        truth = spec.sampling_rate * self.truth_strength
        tau = min(spec.tail, _SITE_TAIL) if view == "site" else spec.tail
        mu = mu_directions(truth, self.directions, self.slots * spec.reports_in(view), tau)
        return RoundCost(mu, 1.0, 1, 3 * tau, pure_epsilon(truth, self.directions))

    def describe(self, spec: RoundSpec) -> dict[str, str]:
        """K counts, of all slots, of the names of directions."""
        del spec
        return {
            "K": str(self.directions),
            "θ": f"{self.truth_strength:.3f}",
            "slots": str(self.slots),
        }

    def canary_places(self, spec: RoundSpec) -> int:
        """Return K: a canary names a direction of its own."""
        del spec
        return self.directions

    def play_canaries(
        self,
        places: NDArray[np.int64],
        signs: NDArray[np.int64],
        spec: RoundSpec,
        view: View,
        seed: bytes,
        coins: SecureRNG,
    ) -> NDArray[np.float64]:
        """Play a round of units that name their places; ``signs`` have no meaning here."""
        del signs, seed
        counts = self._seen(places, spec, view, coins)
        return (counts.astype(np.float64) - self._blanket(spec, view)) / self.truth_strength

    def canary_variance(self, spec: RoundSpec, view: View) -> float:
        """Return the variance of a count, over theta^2."""
        return self._blanket(spec, view) / self.truth_strength**2

    def _blanket(self, spec: RoundSpec, view: View) -> float:
        return self.slots * spec.reports_in(view) / self.directions

    def _seen(
        self, names: NDArray[np.int64], spec: RoundSpec, view: View, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Draw the counts in a view, (K,), if one site's units name ``names`` for certain."""
        nobody = np.zeros(0, np.int64)
        total = self.counts(names, np.ones(len(names)), coins)
        for _ in range(spec.reports_in(view) - 1):
            total = total + self.counts(nobody, np.zeros(0), coins)
        return total

    def play_one_round(
        self, trials: int, spec: RoundSpec, view: View, coins: SecureRNG, *, randomized: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Play with a unit that names the first direction if it is sampled."""
        trials = max(200, min(trials, _AUDITED_NAMES // self.slots))
        there = coins.bernoulli(spec.sampling_numerator, trials)
        if not randomized:
            return np.zeros(trials), there.astype(np.float64)
        first = np.zeros(1, dtype=np.int64)
        without, given = (
            np.array([self._seen(first[: int(n)], spec, view, coins)[0] for n in named], float)
            for named in (np.zeros(trials), there)
        )
        return without, given


class DirectionsPlanner(Planner):
    """How many directions, and how much truth."""

    name: Literal["directions"] = "directions"
    """Each record, or person, names one of K directions."""
    directions: Whole | None = None
    """K, a power of two; null: the one with the least error expected, for each phase."""
    slots: Whole | None = None
    """Answers of a site in a round; null: records/sites."""

    mechanism: ClassVar[type[Mechanism]] = DirectionsMechanism
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
            f"The truth could be told with probability {low:g} at most.",
            "Raise privacy.epsilon or the phase's budget_fraction, or lower its rounds.",
        )
    if costs(high) <= mu:
        return high
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if costs(middle) <= mu else (low, middle)
    return low
