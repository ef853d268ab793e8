"""What one round asks of one site and of the server: all that costs are reckoned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from safetensors.numpy import save

from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.mechanism.gradients import CHUNK as GRADIENT_CHUNK
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.score.arrays import array_specs
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import kind_of, query_of
from dppm_model.securesum.masks import Sum
from dppm_model.securesum.ring import Ring

GRADIENTS = ("score", "detail")  # kinds whose weights join the model, and in the end their average
MOMENTS_CHUNK = 256  # records that all other kinds ask together; the last chunk is filled up


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
        The plan's JSON, which every question carries, and the arrays that `train` carries.
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


def loads(plan: Plan) -> tuple[Load, ...]:
    """Return the load of a round of each phase of a plan."""
    text, found = len(plan.to_json()), []
    released: frozenset[str] = frozenset()
    for p in plan.phases:
        size = question_size(p.name, plan.model, released)
        found.append(Load(p, plan.min_survivors, plan.records_per_person, text, size, plan.rounds))
        released |= _RELEASES.get(kind_of(p.name), frozenset())
    return tuple(found)


# What a phase leaves for the questions after it, beside what is always there.
_RELEASES = {
    "component_covariance": frozenset({"mixture.principal_axes", "mixture.component_covariance"}),
    "fine_covariance": frozenset({"mixture.fine_covariance"}),
}


def question_size(phase: str, model: ModelConfig, released: frozenset[str]) -> int:
    """Return the bytes of a phase's question, once some optional arrays are ``released``."""
    asked = query_of(phase)
    return arrays_size(model, asked.needed | (asked.optional & released))


def arrays_size(model: ModelConfig, names: frozenset[str]) -> int:
    """Return the bytes of some arrays as they travel."""
    specs = array_specs(model)
    return len(save({n: np.zeros(specs[n].shape, specs[n].dtype) for n in names}))
