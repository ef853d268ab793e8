"""Randomized response over directions: the mechanism of the paper, made sound.

DPPM (Liu, Ge et al., arXiv 2305.10662) lets randomized response pick a projection direction; its
ancestor picks among neighbours that are private themselves. Here the alphabet is public: K signed
rows of the round's random rotation. Each sampled record names the direction nearest to its clipped
vector, reports that name with probability theta, and otherwise one of the K uniformly: k-ary
randomized response (Warner 1965; Kairouz et al. 2014) with e^eps0 = 1 + K theta/(1 - theta). A site
has a public number of slots; a slot without a sampled record names uniformly too. The report counts
names.

So a record changes only the law of its own slot, from uniform to at most a share theta of one name:
privacy rests neither on clipping nor on arithmetic, and the report does not show whether any unit
was sampled. `dppm_model.privacy.directions` computes the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr

from dppm_model.bounds import Between, check_settings
from dppm_model.errors import PlanError
from dppm_model.mechanism.base import (
    LEAST_PROBABILITY,
    PROBABILITY_BITS,
    Mechanism,
    RoundSpec,
    Vectors,
    View,
)
from dppm_model.mechanism.rotation import Rotation, public_words
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.directions import mu_directions, pure_epsilon

MOST_SLOTS = 1 << 24
_SITE_TAIL = 1e-60  # the site view's epsilon may be large, and a tail costs e^epsilon of it
_CACHED_ELEMENTS = 1 << 18  # of rows that are rotated together: all passes stay in the cache


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
    """The public parameters of one round's names; see the module for the symbols."""

    directions: int  # K, a power of two from 2 to 2 D: K/2 rows of the rotation, with both signs
    # theta in (0, 1), the probability that a record of norm C reports its direction
    truth_strength: Annotated[float, Between(LEAST_PROBABILITY, 1.0)]
    # S, the answers of every site in a round; at least its number of records
    slots: Annotated[int, Between(1, MOST_SLOTS)]

    name: ClassVar[str] = "directions"
    title: ClassVar[str] = "randomized response of each unit over directions"
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(self, kind=PlanError)
        if self.directions < 2 or self.directions & (self.directions - 1):
            raise PlanError(
                f"phases[].directions is {self.directions}.", "Give a power of two, at least 2."
            )
        if self.truth_strength >= 1:
            raise PlanError(f"phases[].truth_strength is {self.truth_strength}.", "Stay below 1.")

    def check(self, spec: RoundSpec) -> None:
        """Refuse more than two directions a dimension.

        Raises PlanError if there are.
        """
        if self.directions > 2 * spec.rotation.padded:
            raise PlanError(
                f"phases[].directions is {self.directions} in {spec.rotation.padded} dimensions.",
                "Give at most two a dimension.",
            )

    @property
    def most_units(self) -> int:
        """Return S: one more unit would push another out of its slot, which changes two answers."""
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

        Privacy does not depend on it: any function of the record and the public seed would do.
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

        ``names`` (n,) are those of the sampled records, n <= S; ``lengths`` (n,) are their norms
        over C, at most 1: a short vector is reported less often, so that the expected report is
        linear in it. That mixes its law with the uniform one, which reveals less.
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
        """Let each unit name a direction, and count the names, (K,)."""
        rows = self.rows(spec.rotation, seed)
        step = max(1, _CACHED_ELEMENTS // spec.rotation.padded)

        def name(part: slice) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
            found, units = [], vectors.vectors(part)
            while few := list(islice(units, step)):
                together = torch.cat(few).cpu().numpy()
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
