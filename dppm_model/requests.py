"""What a configuration asks of a plan: a target, its assumptions, and the phases; checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from dppm_model.errors import ConfigError
from dppm_model.mechanism.quantize import CLIP_NORM
from dppm_model.phase import RESPONSES, PhasePlan, Response, View
from dppm_model.privacy.accountant import check_delta, check_epsilon
from dppm_model.records.units import Unit
from dppm_model.securesum.group import honest_reports

CALIBRATIONS = ("noise", "rounds", "rate")


@dataclass(frozen=True)
class MechanismRequest:
    """Which randomized response to plan for.

    Attributes
    ----------
    name
        ``binomial`` or ``directions``.
    directions
        K of ``directions``, or None: the one with the least error expected.
    slots
        S of ``directions``, or None: the units of a site if all have equally many.
    """

    name: str = "binomial"
    directions: int | None = None
    slots: int | None = None

    def __post_init__(self) -> None:
        if self.name not in RESPONSES:
            raise ConfigError(f"mechanism.name is {self.name!r}.", f"Use {' or '.join(RESPONSES)}.")


@dataclass(frozen=True)
class PhaseRequest:
    """What a configuration says of a phase.

    Attributes
    ----------
    name, dimension, sampling_rate, rounds
        As in `PhasePlan`.
    budget_fraction
        Of mu^2 (fractions are normalised to one).
    sum_alignment
        Public guess of |sum of a site's vectors| / (their number · C), between 0 and 1. Too small a
        guess clamps (a bias, never a privacy loss); one is always safe and costs some bits.
    """

    name: str
    dimension: int
    sampling_rate: float
    rounds: int
    budget_fraction: float
    sum_alignment: float

    def __post_init__(self) -> None:
        where = f"phases.{self.name}"
        if not 0 < self.budget_fraction <= 1:
            raise ConfigError(
                f"{where}.budget_fraction is {self.budget_fraction}.", "Give a number in (0, 1]."
            )
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(
                f"{where}.sampling_rate is {self.sampling_rate}.", "Give a rate in (0, 1]."
            )
        if self.rounds < 1:
            raise ConfigError(f"{where}.rounds is {self.rounds}.", "Give at least one round.")
        if not 0 <= self.sum_alignment <= 1:
            raise ConfigError(
                f"{where}.sum_alignment is {self.sum_alignment}.", "Give a number from 0 to 1."
            )


@dataclass(frozen=True)
class PrivacyRequest:
    """What a configuration says of privacy: the target, its view and its assumptions.

    ``unit`` is what is protected and ``records`` counts these units, records or persons; a person
    answers a round through up to ``records_per_person`` of their records.

    ``calibrate`` names what is searched for so that the target is met: the ``noise`` of all phases,
    or, at a given ``noise_multiplier`` (1/mu) of the longest phase, that phase's ``rounds`` or
    ``rate``.
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
    calibrate: str = "noise"
    noise_multiplier: float | None = None
    mechanism: MechanismRequest = MechanismRequest()

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ConfigError(
                f"privacy.unit is {self.unit!r}.", f"Use {' or '.join(get_args(Unit))}."
            )
        if self.unit == "record" and self.records_per_person != 1:
            raise ConfigError(
                f"privacy.records_per_person is {self.records_per_person} with "
                "privacy.unit=record.",
                "Leave it out, or protect persons with privacy.unit=person.",
            )
        if self.calibrate not in CALIBRATIONS:
            raise ConfigError(
                f"privacy.calibrate is {self.calibrate!r}.", f"Use {', '.join(CALIBRATIONS)}."
            )
        if (self.noise_multiplier is None) != (self.calibrate == "noise"):
            raise ConfigError(
                f"privacy.noise_multiplier is {self.noise_multiplier} with "
                f"privacy.calibrate={self.calibrate}.",
                "Give it for rounds or rate, where the noise is fixed, and leave it out for noise.",
            )
        if self.noise_multiplier is not None and not self.noise_multiplier > 0:
            raise ConfigError(
                f"privacy.noise_multiplier is {self.noise_multiplier}.", "Give a number above zero."
            )
        if self.mechanism.name == "directions" and self.calibrate != "noise":
            raise ConfigError(
                f"privacy.calibrate is {self.calibrate!r} with mechanism=directions.", "Use noise."
            )
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        if self.view not in ("secure_sum", "site"):
            raise ConfigError(f"privacy.view is {self.view!r}.", "Use 'secure_sum' or 'site'.")
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
                "More than half of all sites and colluding ones must survive: give at least "
                f"{(self.sites + self.colluding_sites) // 2 + 1}.",
            )

    @property
    def honest_sites(self) -> int:
        """n: the honest sites that every opened sum is sure to hold."""
        return honest_reports(self.sites, self.min_survivors, self.colluding_sites)


def phase_plan(
    request: PhaseRequest, privacy: PrivacyRequest, response: Response, tau: float
) -> PhasePlan:
    """Plan a phase as it was asked for, with this randomized response and this tail."""
    return PhasePlan(
        name=request.name,
        mechanism=privacy.mechanism.name,
        response=response,
        clip_norm=CLIP_NORM,
        sampling_rate=request.sampling_rate,
        rounds=request.rounds,
        dimension=request.dimension,
        sites=privacy.sites,
        honest_sites=privacy.honest_sites,
        records=privacy.records,
        tail=tau,
    )
