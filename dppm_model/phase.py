"""One phase of a plan: what a record is asked, how it is protected, and what a round costs.

Sensitivity and cost are computed from these fields here and nowhere else.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dppm_model.errors import PlanError
from dppm_model.mechanism.binomial import BinomialResponse
from dppm_model.mechanism.grid import Grid
from dppm_model.mechanism.rotation import Rotation
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.gdp import mu_secure_sum, mu_site, probability_sensitivity

View = Literal["secure_sum", "site"]
GRID_STEPS = 1 << 24
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def named(field: str, value: str) -> None:
    """Names become file names at the site, so a server must not choose paths with them."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise PlanError(f"{field} is {value!r}.", "Use 1 to 64 letters, digits, '-' or '_'.")


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise PlanError(f"phases[].{name} is {value}.", "Give a finite number above zero.")


@dataclass(frozen=True)
class PhasePlan:
    """One phase: T rounds of one and the same kind of question.

    Attributes
    ----------
    name
        The question: ``means``, ``components``, ``covariance`` or ``score``.
    mechanism
        ``binomial``.
    clip_norm, range_, truth_strength, responses
        C, R, theta, m of DESIGN's mechanism (module ``binomial``).
    sampling_rate, rounds
        q (Poisson, each record of each round) and T.
    dimension
        Coordinates of a record's vector, before padding.
    sites, honest_sites
        N, and the least number n of honest sites in an opened sum.
    records
        The public divisor: how many records the federation says it has, never a count of data.
    tail
        tau of Theorem 3 (PRIVACY.md).
    """

    name: str
    mechanism: str
    clip_norm: float
    range_: float
    truth_strength: float
    responses: int
    sampling_rate: float
    rounds: int
    dimension: int
    sites: int
    honest_sites: int
    records: int
    tail: float

    def __post_init__(self) -> None:
        named("phases[].name", self.name)
        for name in ("clip_norm", "range_", "truth_strength", "sampling_rate", "tail"):
            _positive(name, getattr(self, name))
        for name in ("responses", "rounds", "dimension", "sites", "honest_sites", "records"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise PlanError(f"phases[].{name} is {value}.", "Give a whole number above zero.")
        if self.mechanism != "binomial":
            raise PlanError(f"phases[].mechanism is {self.mechanism!r}.", "Use 'binomial'.")
        if self.truth_strength >= 0.5:
            raise PlanError(f"phases[].truth_strength is {self.truth_strength}.", "Stay below 1/2.")
        if self.sampling_rate > 1:
            raise PlanError(f"phases[].sampling_rate is {self.sampling_rate}.", "Use at most 1.")
        if self.honest_sites > self.sites:
            raise PlanError(
                f"phases[].honest_sites is {self.honest_sites} of {self.sites} sites.",
                "Lower privacy.min_survivors or add sites.",
            )

    @cached_property
    def grid(self) -> Grid:
        """The integer grid that clipped vectors are rounded to."""
        return Grid(self.clip_norm, GRID_STEPS)

    @cached_property
    def rotation(self) -> Rotation:
        """The public rotation of the summed vector."""
        return Rotation.of(self.dimension)

    @cached_property
    def response(self) -> BinomialResponse:
        """The randomized response of each coordinate."""
        return BinomialResponse(self.range_, self.truth_strength, self.responses)

    @property
    def unit(self) -> float:
        """The real value of one integer step of a rotated coordinate (grid over sqrt(block))."""
        return self.clip_norm / GRID_STEPS / math.sqrt(self.rotation.block)

    @property
    def sampling_numerator(self) -> int:
        """The Poisson rate over 2^32, rounded down so that the accounted rate is never passed."""
        return math.floor(self.sampling_rate * 2**32)

    @property
    def divisor(self) -> float:
        """The public expected number of sampled records in a round, q · records."""
        return self.sampling_rate * self.records

    @cached_property
    def sensitivity(self) -> float:
        """L2 sensitivity of all answer probabilities of a round to one sampled record."""
        return probability_sensitivity(
            clip_norm=self.clip_norm,
            range_=self.range_,
            truth_strength=self.truth_strength,
            dimension=self.rotation.padded,
        )

    @cached_property
    def mu_site(self) -> float:
        """Gaussian-DP parameter of one unsampled round for whoever sees a site's own report."""
        return mu_site(
            responses=self.responses,
            truth_strength=self.truth_strength,
            sensitivity=self.sensitivity,
        )

    @cached_property
    def mu_secure_sum(self) -> float:
        """The same for whoever sees only the sum over at least ``honest_sites`` honest sites."""
        return mu_secure_sum(
            responses=self.responses,
            truth_strength=self.truth_strength,
            sensitivity=self.sensitivity,
            honest_sites=self.honest_sites,
            tau=self.tail,
        )

    def total_variation(self, rounds: int) -> float:
        """Theorem 3's eta of ``rounds`` rounds in the secure-sum view, 2 D T tau."""
        return 2 * self.rotation.padded * rounds * self.tail

    def cost(self, view: View, rounds: int) -> RoundCost:
        """What the accountant composes for the first ``rounds`` rounds of this phase."""
        if view == "site":
            return RoundCost(self.mu_site, self.sampling_rate, rounds)
        return RoundCost(
            self.mu_secure_sum, self.sampling_rate, rounds, self.total_variation(rounds)
        )

    def noise_std(self, sites: int) -> float:
        """Standard deviation of the noise in each coordinate of a round's mean-vector estimate."""
        return math.sqrt(self.response.variance(sites)) / self.divisor

    @property
    def bits(self) -> int:
        """Bits of one coordinate of the sum, ceil(log2(N m + 1))."""
        return (self.sites * self.responses).bit_length()
