"""What one round asks of one site and of the server: all that costs are reckoned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from dppm_model.config import Config, initial_model
from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.mechanism.gradients import CHUNK as GRADIENT_CHUNK
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import kind_of
from dppm_model.securesum.masks import Sum
from dppm_model.securesum.ring import Ring

GRADIENTS = ("score", "detail")  # kinds whose weights join the model, and in the end their average
MOMENTS_CHUNK = 256  # records that all other kinds ask together; the last chunk is filled up
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Load:
    """One round of a phase, at every site alike.

    Attributes
    ----------
    phase
        As it is planned.
    threshold
        t, how many sites must help to open the sum (`min_survivors`).
    records_per_person
        K, the most records that a unit answers through.
    plan_bytes, model_bytes
        The plan's JSON, which every question carries, and the model, which `train` carries.
    rounds
        How many rounds the run has.
    """

    phase: PhasePlan
    threshold: int
    records_per_person: int
    plan_bytes: int
    model_bytes: int
    rounds: int

    @property
    def sites(self) -> int:
        """N."""
        return self.phase.sites

    @property
    def kind(self) -> str:
        """What is asked."""
        return kind_of(self.phase.name)

    @property
    def units(self) -> float:
        """Units (records or persons) that a site holds, if all have equally many."""
        return self.phase.records / self.sites

    @property
    def records(self) -> float:
        """Records that a site is expected to ask, those included that fill up the last chunk."""
        chunk = GRADIENT_CHUNK if self.kind in GRADIENTS else MOMENTS_CHUNK
        sampled = self.phase.divisor / self.sites * self.records_per_person
        if sampled < 1:  # most rounds ask nobody, and a round without records no chunk
            return sampled * chunk
        return math.ceil(sampled / chunk) * chunk

    @property
    def cells(self) -> int:
        """D, numbers in a report."""
        return self.phase.cells

    @cached_property
    def ring(self) -> Ring:
        """The ring of the masked vectors: their bits, and the type of the arithmetic."""
        return Sum(0, self.phase.bits, self.cells).ring

    @property
    def mask_bytes(self) -> int:
        """Bytes of key stream in one mask."""
        return self.ring.length * self.ring.dtype.itemsize

    @property
    def planes(self) -> int:
        """Passes over a vector to pack it: whole bytes, then single bits."""
        whole, rest = divmod(self.ring.bits, 8)
        return whole + rest

    @property
    def answers(self) -> int:
        """m, answers to each coordinate; 0 where units name directions."""
        response = self.phase.response
        return 0 if isinstance(response, DirectionsResponse) else response.responses


def loads(plan: Plan, config: Config) -> tuple[Load, ...]:
    """Return the load of a round of each phase of a plan."""
    model, learned, text, found = initial_model(config), 0, len(plan.to_json()), []
    for p in plan.phases:
        kind = kind_of(p.name)
        weights = _FLOAT * p.dimension if kind in GRADIENTS else 0
        if kind == "spread":  # asks in the axes, and then releases what it has learned
            model = _with(model, "axes")
        size = len(model.to_bytes()) + learned + weights
        found.append(Load(p, plan.min_survivors, plan.records_per_person, text, size, plan.rounds))
        learned += 2 * weights
        if kind in ("spread", "pooled"):
            model = _with(model, kind)
    return tuple(found)


def _with(model: ScoreModel, name: str) -> ScoreModel:
    """Return a model of the size that it has once an array is released."""
    return model.replace({f"mixture.{name}": model.array(f"mixture.{name}")})
