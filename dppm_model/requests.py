"""The configuration's request for a plan: target, assumptions and phases, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dppm_model.aggregation import SECURE_SUM, honest_reports
from dppm_model.errors import ConfigError
from dppm_model.mechanism.base import RoundSpec, View
from dppm_model.mechanism.quantize import CLIP_NORM
from dppm_model.planning.base import Planner
from dppm_model.planning.binomial import BinomialPlanner
from dppm_model.privacy.accountant import RoundCost, check_delta, check_epsilon, epsilon
from dppm_model.privacy.calibration import calibrate
from dppm_model.records.units import Unit

Calibration = Literal["noise", "rounds", "rate"]
_LEAST_MU = 1e-6  # of a whole run
_USUAL_DELTA = 1e-5


@dataclass(frozen=True)
class PhaseRequest:
    """A phase, as the configuration describes it."""

    # as in `dppm_model.phase.PhasePlan`
    name: str
    dimension: int
    sampling_rate: float
    rounds: int
    budget_fraction: float  # of mu^2 (fractions are normalised to one)
    # Public guess of |sum of a site's vectors| / (their number · C), between 0 and 1. Too small a
    # guess clamps (a bias, never a privacy loss); one is always safe and costs some bits.
    sum_alignment: float


@dataclass(frozen=True)
class PrivacyRequest:
    """The privacy target, its view and its assumptions.

    ``records`` counts the protected units, records or persons, and ``delta`` is at most one over
    it unless ``large_delta`` insists: above, publishing a unit drawn at random would do. A person
    takes part in a round with up to ``records_per_person`` records. ``calibrate`` names the
    quantity that is adjusted to meet the target: the ``noise`` of all phases or, at a given
    ``noise_multiplier`` (1/mu) of the longest phase, that phase's ``rounds`` or ``rate``.
    """

    epsilon: float
    delta: float
    view: View
    unit: Unit
    records_per_person: int
    sites: int
    records: int
    min_survivors: int
    colluding_sites: int
    calibrate: Calibration = "noise"
    noise_multiplier: float | None = None
    mechanism: Planner = field(default_factory=BinomialPlanner)
    large_delta: bool = False

    def __post_init__(self) -> None:
        if self.unit == "record" and self.records_per_person != 1:
            raise ConfigError(
                f"privacy.records_per_person is {self.records_per_person} with "
                "privacy.unit=record.",
                "Leave it out, or protect persons with privacy.unit=person.",
            )
        if (self.noise_multiplier is None) != (self.calibrate == "noise"):
            raise ConfigError(
                f"privacy.noise_multiplier is {self.noise_multiplier} with "
                f"privacy.calibrate={self.calibrate}.",
                "Give it for rounds or rate, where the noise is fixed, and leave it out for noise.",
            )
        self.mechanism.check(self.view, self.calibrate)
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        if self.delta * self.records > 1 and not self.large_delta:
            raise ConfigError(
                f"privacy.delta is {self.delta:g} with {self.records} {self.unit}s: above one over "
                "them, a run that publishes one of them whole may keep it.",
                f"Give at most {1 / self.records:.2g}, or insist with privacy.large_delta=true.",
            )
        self._check_noise_exists()
        if not 1 <= self.min_survivors <= self.sites:
            raise ConfigError(
                f"privacy.min_survivors is {self.min_survivors} with {self.sites} sites.",
                "Give a number from 1 to the number of sites.",
            )
        if not 0 <= self.colluding_sites < self.min_survivors:
            raise ConfigError(
                f"privacy.colluding_sites is {self.colluding_sites} with min_survivors "
                f"{self.min_survivors}.",
                "At least one surviving site must be honest.",
            )
        if 2 * self.min_survivors <= self.sites + self.colluding_sites:
            raise ConfigError(
                f"privacy.min_survivors is {self.min_survivors} with {self.sites} sites, "
                f"{self.colluding_sites} of them colluding.",
                "More than half of the sum of all and colluding sites must survive: give at least "
                f"{(self.sites + self.colluding_sites) // 2 + 1}.",
            )

    def _check_noise_exists(self) -> None:
        """Refuse a target that no noise meets, and say whether epsilon or delta is the cause."""
        if epsilon([RoundCost(_LEAST_MU, 1.0, 1)], self.delta) <= self.epsilon:
            return
        usual = epsilon([RoundCost(_LEAST_MU, 1.0, 1)], _USUAL_DELTA) <= self.epsilon
        name, value = ("delta", self.delta) if usual else ("epsilon", self.epsilon)
        raise ConfigError(
            f"privacy.{name} is {value:g}: too small for the accounting, whatever the noise.",
            f"Give a larger one; delta is usually a little below {1 / self.records:.2g}."
            if usual
            else "Give a larger one.",
        )

    @property
    def honest_sites(self) -> int:
        """n, the least number of honest sites in any opened sum."""
        return honest_reports(SECURE_SUM, self.sites, self.min_survivors, self.colluding_sites)

    @property
    def total_mu(self) -> float:
        """The Gaussian mechanism's mu that the target allows the whole run, for the noise of sums.

        In the view of a single site, each of the honest sites' reports has the noise of the target:
        that of their sum is as if mu were sqrt(n) times as large.
        """
        mu = calibrate(
            lambda mu: [RoundCost(mu, 1.0, 1)],
            epsilon=self.epsilon,
            delta=self.delta,
            low=_LEAST_MU,
            high=100.0,
        )
        return mu * math.sqrt(self.honest_sites) if self.view == "site" else mu

    def spec(self, phase: PhaseRequest, tail: float) -> RoundSpec:
        """Return the public facts of a round of a phase."""
        return RoundSpec(
            clip_norm=CLIP_NORM,
            sampling_rate=phase.sampling_rate,
            dimension=phase.dimension,
            sites=self.sites,
            honest_sites=self.honest_sites,
            records=self.records,
            tail=tail,
        )
