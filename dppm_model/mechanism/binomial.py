"""Binomial randomized response: the mechanism of the project.

Every coordinate z of the rotated sum is asked the same yes/no question m times. An answer is "yes"
with probability p = 1/2 + theta clamp(z, -R, R)/R, which is Warner's randomized response (1965) on
the stochastic sign of z. The report is the tally t ~ Bin(m, p), a small integer from an alphabet
that is public and fixed beforehand. `mu` of one round is exact, not asymptotic (PRIVACY.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from dppm_model.bounds import Between, check_settings, require_length
from dppm_model.errors import PlanError
from dppm_model.mechanism.base import (
    LEAST_PROBABILITY,
    PROBABILITY_BITS,
    Mechanism,
    RoundSpec,
    Vectors,
    View,
)
from dppm_model.mechanism.fair_binomial import fair_binomial
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.gdp import mu_secure_sum, mu_site, probability_sensitivity

MOST_RESPONSES = 1 << 20  # a plan's cost is a sum over them, and plans come from other people


def binomial(m: int, numerators: NDArray[np.uint64], coins: SecureRNG) -> NDArray[np.int64]:
    """Draw Bin(m, P_j / 2^32) for every numerator P_j in [0, 2^32), exactly.

    An answer compares a uniform 32-bit U with P, "yes" iff U < P, bit by bit from the top. Answers
    are exchangeable, so only their number matters: of the tied ones, Bin(tied, 1/2) draw a 0. If
    P has a 1 there they are decided "yes", if P has a 0 the others are decided "no". Half of the
    ties fall at each level, so about 2m coins are used instead of 32m.
    """
    yes = np.zeros(numerators.size, dtype=np.int64)
    active = np.arange(numerators.size)
    p = numerators
    tied = np.full(numerators.size, m, dtype=np.int64)
    for bit in range(PROBABILITY_BITS - 1, -1, -1):
        zeros = fair_binomial(tied, coins)
        is_one = (p >> np.uint64(bit)) & np.uint64(1) == 1
        yes[active] += np.where(is_one, zeros, 0)
        tied = np.where(is_one, tied - zeros, zeros)
        alive = tied > 0
        count = np.count_nonzero(alive)
        if count == 0:
            break
        if 2 * count <= alive.size:
            active, p, tied = active[alive], p[alive], tied[alive]
    return yes


@dataclass(frozen=True)
class BinomialMechanism(Mechanism):
    """The public parameters of one round's answers; see the module for the symbols."""

    range_: float  # R, in units of the record's vector: coordinates are clamped to [-R, R]
    truth_strength: Annotated[float, Between(LEAST_PROBABILITY, 0.5)]  # theta, below 1/2
    responses: Annotated[int, Between(1, MOST_RESPONSES)]  # m, answers per coordinate

    name: ClassVar[str] = "binomial"
    title: ClassVar[str] = "randomized response of each coordinate"

    def __post_init__(self) -> None:
        check_settings(self, kind=PlanError)
        require_length("range", self.range_)
        if self.truth_strength >= 0.5:
            raise PlanError(f"phases[].truth_strength is {self.truth_strength}.", "Stay below 1/2.")

    def report_length(self, spec: RoundSpec) -> int:
        """Return D, the padded dimension."""
        return spec.rotation.padded

    def max_count(self, spec: RoundSpec) -> int:
        """Return m, the largest tally."""
        del spec
        return self.responses

    def numerators(self, z: NDArray[np.int64], unit: float) -> NDArray[np.uint64]:
        """Map integer coordinates (z · unit is the real value) to P = 2^32 p, rounded.

        Rounding moves p by at most 2^-33; the accountant adds that to the sensitivity.
        """
        strength = self.truth_strength * 2.0**PROBABILITY_BITS
        scaled = np.clip(z * (unit * strength / self.range_), -strength, strength)
        offset = np.rint(scaled).astype(np.int64)
        shifted: NDArray[np.uint64] = (offset + (1 << (PROBABILITY_BITS - 1))).astype(np.uint64)
        return shifted

    def tallies(self, z: NDArray[np.int64], unit: float, coins: SecureRNG) -> NDArray[np.int64]:
        """Answer for each integer coordinate of a rotated sum (D,): tallies t, each in 0..m."""
        return binomial(self.responses, self.numerators(z, unit), coins)

    def encode(
        self, vectors: Vectors, spec: RoundSpec, seed: bytes, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Spread every unit's vector over all coordinates, then answer for each by biased coins.

        Vectors are summed in integers, where no unit can move the sum by more than C (a float sum
        can; Casacuberta et al. 2022).
        """
        z = spec.rotation.rotate(vectors.total(), seed)
        return self.tallies(z, spec.step, coins)

    def clamped_sum(
        self, total: NDArray[np.int64] | NDArray[np.float64], sites: int
    ) -> NDArray[np.float64]:
        """Estimate the sum of the clamped z over ``sites`` from the sum of their tallies.

        (T - N m/2) R / (m theta), unbiased for any surviving set of N sites.
        """
        m, theta = self.responses, self.truth_strength
        return (total.astype(np.float64) - sites * m / 2) * (self.range_ / (m * theta))

    def decode(
        self, total: NDArray[np.int64], sites: int, spec: RoundSpec, seed: bytes
    ) -> NDArray[np.float64]:
        """Estimate the rotated sum, and rotate it back."""
        return spec.rotation.unrotate(self.clamped_sum(total, sites), seed)

    def variance(self, sites: int, spec: RoundSpec) -> float:
        """Return the largest noise variance of a coordinate, N R^2 / (4 m theta^2)."""
        del spec
        return sites * self.range_**2 / (4 * self.responses * self.truth_strength**2)

    def cost(self, view: View, spec: RoundSpec) -> RoundCost:
        """Theorems 1 and 2 on each coordinate's answers; Theorem 3's eta is 2 D tau a round."""
        m, theta, d = self.responses, self.truth_strength, spec.rotation.padded
        sensitivity = probability_sensitivity(
            clip_norm=spec.clip_norm, range_=self.range_, truth_strength=theta, dimension=d
        )
        if view == "site":
            alone = mu_site(responses=m, truth_strength=theta, sensitivity=sensitivity)
            return RoundCost(alone, spec.sampling_rate, 1)
        summed = mu_secure_sum(
            responses=m,
            truth_strength=theta,
            sensitivity=sensitivity,
            honest_sites=spec.honest_sites,
            tau=spec.tail,
        )
        return RoundCost(summed, spec.sampling_rate, 1, 2 * d * spec.tail)
