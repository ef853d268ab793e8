"""One phase of a plan: the question, the mechanism that protects each unit, and the rounds.

A unit is a record or a person, as the plan says; a phase only counts them. Sensitivity and cost are
computed from these fields here and nowhere else.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from dppm_model.bounds import Between
from dppm_model.errors import DataError, PlanError
from dppm_model.mechanism.base import Mechanism, RoundSpec, View
from dppm_model.mechanism.registry import MECHANISMS
from dppm_model.privacy.accountant import RoundCost
from dppm_model.reading import as_floats

_MOST_ROUNDS = 1 << 20
_MOST_BITS = 62  # of a number of the sum: int64 holds it with the noise
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def named(field: str, value: str) -> None:
    """Refuse a name that is more than a name: names become file names at the site."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise PlanError(f"{field} is {value!r}.", "Use 1 to 64 letters, digits, '-' or '_'.")


@dataclass(frozen=True, kw_only=True)
class PhasePlan(RoundSpec):
    """One phase: T rounds of one and the same kind of question."""

    name: str  # the question: a kind of `dppm_model.score.phases`, or ``kind-anything``
    mechanism: Mechanism  # with its parameters
    rounds: Annotated[int, Between(1, _MOST_ROUNDS)]  # T

    def __post_init__(self) -> None:
        named("phases[].name", self.name)
        super().__post_init__()
        self.mechanism.check(self)
        if self.bits > _MOST_BITS:
            raise PlanError(
                f"phase {self.name} needs {self.bits} bits a number.",
                f"Plan for fewer units or sites: a sum has at most {_MOST_BITS} bits.",
            )

    @classmethod
    def of(cls, spec: RoundSpec, *, name: str, mechanism: Mechanism, rounds: int) -> PhasePlan:
        """Complete a specification by its question, mechanism and rounds."""
        own = {f.name: getattr(spec, f.name) for f in fields(RoundSpec)}
        return cls(**own, name=name, mechanism=mechanism, rounds=rounds)

    @property
    def report_length(self) -> int:
        """How many numbers a report has."""
        return self.mechanism.report_length(self)

    @property
    def max_count(self) -> int:
        """The largest number that a report can hold."""
        return self.mechanism.max_count(self)

    @property
    def bits(self) -> int:
        """Bits of one number of the sum, for up to N times a report's largest."""
        return (self.sites * self.max_count).bit_length()

    def cost(self, view: View, rounds: int) -> RoundCost:
        """Return the cost of the first ``rounds`` rounds of this phase, for the accountant."""
        cost = self.mechanism.cost(view, self)
        return replace(cost, rounds=rounds, total_variation=cost.total_variation * rounds)

    def check_units(self, units: int) -> None:
        """Refuse a site with more units than the mechanism takes, before anything is spent.

        Raises DataError if it holds more.
        """
        if units > self.mechanism.most_units:
            raise DataError(
                "This site holds more units (records or persons) than the plan has slots "
                f"({self.mechanism.most_units}).",
                "Plan with a larger mechanism.slots.",
            )

    def noise_std(self, sites: int) -> float:
        """Standard deviation of the noise in each coordinate of a round's mean-vector estimate."""
        return math.sqrt(self.mechanism.variance(sites, self)) / self.divisor * self.sites / sites

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with the mechanism's own beside the others."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return own | {"mechanism": self.mechanism.name} | self.mechanism.to_dict()

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> PhasePlan:
        """Rebuild a phase, validating every field.

        Raises PlanError if a field is out of its range; TypeError or KeyError if one is missing or
        unknown.
        """
        name = raw["mechanism"]
        if not isinstance(name, str) or name not in MECHANISMS:
            raise PlanError(
                f"phases[].mechanism is {name!r:.80}.", f"Use {' or '.join(MECHANISMS)}."
            )
        kind = MECHANISMS[name]
        rest = {k: value for k, value in raw.items() if k not in {*kind.keys(), "mechanism"}}
        return cls(mechanism=kind.from_dict(raw), **as_floats(cls, rest))
