"""One phase of a plan: what is asked, how each unit is protected, and what a round costs.

A unit is a record or a person, as the plan says; a phase only counts them.

Sensitivity and cost are computed from these fields here and nowhere else.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

from dppm_model.errors import DataError, PlanError, require_length, require_whole, require_within
from dppm_model.mechanism.binomial import LEAST_PROBABILITY, BinomialResponse
from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.mechanism.quantize import Grid
from dppm_model.mechanism.rotation import Rotation
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.directions import mu_directions, pure_epsilon
from dppm_model.privacy.gdp import mu_secure_sum, mu_site, probability_sensitivity
from dppm_model.score.settings import as_floats

View = Literal["secure_sum", "site"]
GRID_STEPS = 1 << 24
# What a plan may count, whoever wrote it: what it costs, and what it takes, can then be computed.
_MOST = {
    "rounds": 1 << 20,
    "dimension": 1 << 40,
    "sites": 1 << 20,
    "honest_sites": 1 << 20,
    "records": 1 << 40,
}
_LEAST_TAIL = 1e-270  # below, the cuts of the accountant's laws would underflow
_SITE_TAIL = 1e-60  # the site view's epsilon may be large, and a tail costs e^epsilon of it
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def named(field: str, value: str) -> None:
    """Names become file names at the site, so a server must not choose paths with them."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise PlanError(f"{field} is {value!r}.", "Use 1 to 64 letters, digits, '-' or '_'.")


Response = BinomialResponse | DirectionsResponse
RESPONSES: dict[str, type[BinomialResponse] | type[DirectionsResponse]] = {
    "binomial": BinomialResponse,
    "directions": DirectionsResponse,
}


@dataclass(frozen=True)
class PhasePlan:
    """One phase: T rounds of one and the same kind of question.

    Attributes
    ----------
    name
        The question: a kind of `dppm_model.score.phases`, or ``kind-anything``.
    mechanism, response
        ``binomial`` or ``directions``, and its own parameters (the modules of these names).
    clip_norm
        C, the largest norm of a unit's vector.
    sampling_rate, rounds
        q (Poisson, each unit in each round) and T.
    dimension
        Coordinates of a unit's vector, before padding.
    sites, honest_sites
        N, and the least number n of honest sites in an opened sum.
    records
        The public divisor: how many units (records or persons) the federation says it has, never a
        count of data.
    tail
        tau of Theorem 3 (PRIVACY.md).
    """

    name: str
    mechanism: str
    response: Response
    clip_norm: float
    sampling_rate: float
    rounds: int
    dimension: int
    sites: int
    honest_sites: int
    records: int
    tail: float

    def __post_init__(self) -> None:
        named("phases[].name", self.name)
        require_length("phases[].clip_norm", self.clip_norm)
        require_within("phases[].sampling_rate", self.sampling_rate, LEAST_PROBABILITY, 1.0)
        require_within("phases[].tail", self.tail, _LEAST_TAIL, 0.5)
        for name, most in _MOST.items():
            require_whole(f"phases[].{name}", getattr(self, name), most=most)
        if type(self.response) is not RESPONSES.get(self.mechanism):
            raise PlanError(
                f"phases[].mechanism is {self.mechanism!r}.", f"Use {' or '.join(RESPONSES)}."
            )
        if self.cells > 2 * self.rotation.padded:
            raise PlanError(
                f"phases[].directions is {self.cells} in {self.rotation.padded} dimensions.",
                "Give at most two a dimension.",
            )
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

    @property
    def cells(self) -> int:
        """How many numbers a report has."""
        return self.response.cells(self.rotation)

    @property
    def step(self) -> float:
        """The real value of one integer step of a rotated coordinate (grid over sqrt(block))."""
        return self.clip_norm / GRID_STEPS / math.sqrt(self.rotation.block)

    @property
    def sampling_numerator(self) -> int:
        """The Poisson rate over 2^32, rounded down so that the accounted rate is never passed."""
        return math.floor(self.sampling_rate * 2**32)

    @property
    def divisor(self) -> float:
        """The public expected number of sampled units in a round, q · records."""
        return self.sampling_rate * self.records

    def cost(self, view: View, rounds: int) -> RoundCost:
        """What the accountant composes for the first ``rounds`` rounds of this phase."""
        cost = self._round_costs[view]
        return replace(cost, rounds=rounds, total_variation=cost.total_variation * rounds)

    @cached_property
    def _round_costs(self) -> dict[View, RoundCost]:
        """The cost of one round for who sees a site's own report, and for who sees the sum."""
        if isinstance(self.response, DirectionsResponse):
            return self._directions_costs(self.response)
        return self._binomial_costs(self.response)

    def _binomial_costs(self, response: BinomialResponse) -> dict[View, RoundCost]:
        """Theorems 1 and 2 on each coordinate's answers; Theorem 3's eta is 2 D tau a round."""
        m, theta = response.responses, response.truth_strength
        sensitivity = probability_sensitivity(
            clip_norm=self.clip_norm,
            range_=response.range_,
            truth_strength=theta,
            dimension=self.rotation.padded,
        )
        alone = mu_site(responses=m, truth_strength=theta, sensitivity=sensitivity)
        summed = mu_secure_sum(
            responses=m,
            truth_strength=theta,
            sensitivity=sensitivity,
            honest_sites=self.honest_sites,
            tau=self.tail,
        )
        eta = 2 * self.rotation.padded * self.tail
        return {
            "site": RoundCost(alone, self.sampling_rate, 1),
            "secure_sum": RoundCost(summed, self.sampling_rate, 1, eta),
        }

    def _directions_costs(self, response: DirectionsResponse) -> dict[View, RoundCost]:
        """The blanket of all slots seen; who is sampled is part of what is randomized."""
        truth = self.sampling_rate * response.truth_strength
        pure = pure_epsilon(truth, response.directions)

        def seen(slots: int, tau: float) -> RoundCost:
            mu = mu_directions(truth, response.directions, slots, tau)
            return RoundCost(mu, 1.0, 1, 3 * tau, pure)

        return {
            "site": seen(response.slots, min(self.tail, _SITE_TAIL)),
            "secure_sum": seen(response.slots * self.honest_sites, self.tail),
        }

    def check_units(self, units: int) -> None:
        """Refuse a site with more units than slots, before anything is spent.

        Raises
        ------
        DataError
            Then a new unit would push another out of its slot, and move two answers.
        """
        if isinstance(self.response, DirectionsResponse) and units > self.response.slots:
            raise DataError(
                "This site holds more units (records or persons) than the plan has slots "
                f"({self.response.slots}).",
                "Plan with a larger mechanism.slots.",
            )

    def noise_std(self, sites: int) -> float:
        """Standard deviation of the noise in each coordinate of a round's mean-vector estimate."""
        if isinstance(self.response, DirectionsResponse):
            variance = self.response.variance(sites, self.clip_norm, self.rotation)
        else:
            variance = self.response.variance(sites)
        return math.sqrt(variance) / self.divisor

    @property
    def bits(self) -> int:
        """Bits of one number of the sum, for up to N times a report's largest."""
        return (self.sites * self.response.most).bit_length()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with the response's own beside the others."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "response"}
        return own | {key.rstrip("_"): value for key, value in asdict(self.response).items()}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> PhasePlan:
        """Rebuild a phase, validating every field.

        Raises
        ------
        PlanError
            If a field is out of its range; TypeError or KeyError if one is missing or unknown.
        """
        kind = RESPONSES.get(raw["mechanism"], BinomialResponse)
        names = {f.name.rstrip("_"): f.name for f in fields(kind)}
        response = kind(**as_floats(kind, {own: raw[name] for name, own in names.items()}))
        rest = {key: value for key, value in raw.items() if key not in names}
        return cls(response=response, **as_floats(cls, rest))
