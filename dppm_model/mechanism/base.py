"""Mechanisms: from the clipped vectors of a site's units to a report, and back to a sum.

A mechanism is a frozen dataclass of its public parameters. Everything else that it needs to know of
a round is public too, in a `RoundSpec` such as a plan's phase. `dppm_model.mechanism.registry`
lists the implementations; nothing outside it knows them by name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.bounds import Between, check_settings, require_length
from dppm_model.errors import PlanError
from dppm_model.mechanism.quantize import GRID_STEPS, Grid
from dppm_model.mechanism.rotation import Rotation
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost
from dppm_model.reading import as_floats

# An observer sees the release (the model, and everything made from it), the opened sum of the
# honest sites (the server), or a single site's report (the server and all other sites).
View = Literal["release", "secure_sum", "site"]
VIEWS: tuple[View, ...] = get_args(View)
T = TypeVar("T")

PROBABILITY_BITS = 32
LEAST_PROBABILITY = 2.0**-PROBABILITY_BITS  # no coin is finer
# Limits of a plan's counts, so that its cost and its memory can be computed.
_MOST_UNITS, _MOST_SITES = 1 << 40, 1 << 20
_LEAST_TAIL = 1e-270  # below, the cuts of the accountant's laws would underflow
_MOST_BITS = 62  # of a number of a sum: int64 holds it, noise included


class Vectors(Protocol):
    """The clipped integer vectors of a site's sampled units (`UnitBatches`)."""

    def total(self) -> NDArray[np.int64]:
        """Return their sum, (dimension,)."""

    def vectors(self, part: slice) -> Iterator[torch.Tensor]:
        """Yield some of them one by one, (1, dimension) float64 holding integers."""

    def map(self, ask: Callable[[slice], T]) -> list[T]:
        """Ask block by block, leaving out units that fail."""


@dataclass(frozen=True, kw_only=True)
class RoundSpec:
    """The public facts of each round of a phase, for any mechanism."""

    clip_norm: float  # C, the largest norm of a unit's vector
    # q (Poisson, each unit in each round)
    sampling_rate: Annotated[float, Between(LEAST_PROBABILITY, 1.0)]
    # coordinates of a unit's vector, before padding
    dimension: Annotated[int, Between(1, _MOST_UNITS)]
    # N, and the least number n of honest sites in an opened sum
    sites: Annotated[int, Between(1, _MOST_SITES)]
    honest_sites: Annotated[int, Between(1, _MOST_SITES)]
    # the public divisor: the number of units (records or persons) that the federation claims, never
    # a count of data
    records: Annotated[int, Between(1, _MOST_UNITS)]
    tail: Annotated[float, Between(_LEAST_TAIL, 0.5)]  # tau of Theorem 3 (PRIVACY.md)

    def __post_init__(self) -> None:
        check_settings(self, "phases[]", PlanError)
        require_length("phases[].clip_norm", self.clip_norm)
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
    def sampling_numerator(self) -> int:
        """The Poisson rate times 2^32, rounded down so that it never exceeds the accounted rate."""
        return math.floor(self.sampling_rate * 2**32)

    @property
    def step(self) -> float:
        """The size of an integer step of a rotated coordinate (grid over sqrt(block))."""
        return self.clip_norm / GRID_STEPS / math.sqrt(self.rotation.block)

    @property
    def divisor(self) -> float:
        """The public expected number of sampled units in a round, q · records."""
        return self.sampling_rate * self.records

    def reports_in(self, view: View) -> int:
        """How many reports are in what an observer sees."""
        return 1 if view == "site" else self.honest_sites


@dataclass(frozen=True)
class Mechanism(ABC):
    """The public parameters of one round's answers; ``name`` is the mechanism's name in plans."""

    name: ClassVar[str]
    title: ClassVar[str]  # a short description for people
    # whether the server adds the noise (`release`): then nothing protects a report, or a sum of
    # reports, and a site answers only if its own policy trusts the server
    trusts_server: ClassVar[bool] = False
    # whether a report is a function of the site's sum, and `decode` estimates any sum
    adds_up: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as a plan shows them."""
        return {key.rstrip("_"): value for key, value in asdict(self).items()}

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Return the fields by their names in a plan (``range`` is `range_`)."""
        return {f.name.rstrip("_"): f.name for f in fields(cls)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Rebuild from what `to_dict` returned, ignoring other keys.

        Raises PlanError if a parameter is out of its range; KeyError if one is missing.
        """
        return cls(**as_floats(cls, {field: raw[key] for key, field in cls.keys().items()}))

    def check(self, spec: RoundSpec) -> None:  # noqa: B027
        """Refuse parameters that do not fit the round; PlanError if so."""

    @property
    def most_units(self) -> float:
        """The most units (records or persons) that a site may hold."""
        return math.inf

    @abstractmethod
    def report_length(self, spec: RoundSpec) -> int:
        """Return how many numbers a report has."""

    @abstractmethod
    def max_count(self, spec: RoundSpec) -> int:
        """Return the largest number that a report can hold."""

    @abstractmethod
    def encode(
        self, vectors: Vectors, spec: RoundSpec, seed: bytes, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Answer a round at a site. The only function through which data leave.

        ``vectors`` are those of the sampled units; ``seed`` is the round's public seed. Returns a
        report (`report_length`,) of numbers in 0..`max_count`, of a shape that does not depend on
        the sample.
        """

    def release(
        self, total: NDArray[np.int64], spec: RoundSpec, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Add the server's noise to a sum of reports: none, unless it `trusts_server`.

        Call it once for a sum: a second call with other coins would be a second release.
        """
        del spec, coins
        return total

    @abstractmethod
    def decode(
        self, total: NDArray[np.int64], sites: int, spec: RoundSpec, seed: bytes
    ) -> NDArray[np.float64]:
        """Estimate the sum of the sampled units' clipped vectors, (dimension,), without bias.

        ``total`` is the (released) sum of the reports of ``sites`` sites.
        """

    @abstractmethod
    def variance(self, sites: int, spec: RoundSpec) -> float:
        """Return the (largest) noise variance of a decoded coordinate."""

    @abstractmethod
    def cost(self, view: View, spec: RoundSpec) -> RoundCost:
        """Return what the accountant composes for one round; mu is infinite without protection."""
