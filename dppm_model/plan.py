"""The plan: everything that is public about a run. The executed plan is the accounted plan.

Sensitivity, sampling and cost are computed from the plan's fields here and nowhere else; a site
executes these fields and computes its own costs from them. The plan also pins the model's whole
public configuration, from which sites build the questions to their records. A frozen dataclass
holds public information only; private data are always arguments of functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any

from dppm_model.aggregation import honest_reports
from dppm_model.bounds import Between, check_settings
from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.base import View
from dppm_model.phase import PhasePlan, named
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.ledger import Debit
from dppm_model.reading import as_floats, parse_json, reading
from dppm_model.records.units import Unit
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import dimension_of

_MOST_COORDINATES = 1 << 30  # rotated sums of them stay inside int64 (`mechanism.quantize`)
_LONGEST_SEED = 64
_MOST_COUNT = 2**53 - 1
_Count = Annotated[int, Between(1, _MOST_COUNT)]
_HINT = "Make it with `dppm plan`."


@dataclass(frozen=True)
class Plan:
    """All phases of a run, the assumptions of their accounting, and the public randomness."""

    # A unique name, and the public seed of the rotations, hexadecimal
    run: str
    seed: str
    delta: Annotated[float, Between(1e-100, 0.5)]  # the δ of the reported ε
    # The protected unit: each ``record``, or each ``person`` with all their records at a site.
    # Phases count and sample these units.
    unit: Unit
    records_per_person: _Count  # K, the most records of a person in one round; 1 for records
    # N, s and c of the `aggregation`'s accounting; see `dppm_model.aggregation`
    sites: _Count
    min_survivors: _Count
    colluding_sites: Annotated[int, Between(0, _MOST_COUNT)]
    aggregation: str  # how reports are added up
    model: ModelConfig  # the public configuration of the model, from which all questions are built
    phases: tuple[PhasePlan, ...]  # in their order

    def __post_init__(self) -> None:
        named("run", self.run)
        check_settings(self, kind=PlanError)
        if len(self.seed) > _LONGEST_SEED:
            raise PlanError(f"seed is {self.seed!r:.80}.", "Give at most 64 hexadecimal digits.")
        if len({p.name for p in self.phases}) < len(self.phases):
            raise PlanError("Two phases have the same name.", "Phase names must be unique.")
        if self.unit == "record" and self.records_per_person > 1:
            raise PlanError(
                f"records_per_person is {self.records_per_person}, but the unit is the record.",
                "Use 1.",
            )
        if not 1 <= self.min_survivors <= self.sites:
            raise PlanError(
                f"min_survivors is {self.min_survivors} of {self.sites} sites.", "Lower it."
            )
        if not self.phases:
            raise PlanError("phases is empty.", "Add at least one phase.")
        if len({p.mechanism.trusts_server for p in self.phases}) > 1:
            raise PlanError(
                "Some phases trust the server, others do not.",
                "Make a plan whose phases are all of one mechanism.",
            )
        honest = honest_reports(
            self.aggregation, self.sites, self.min_survivors, self.colluding_sites
        )
        for phase in self.phases:
            if phase.sites != self.sites or phase.honest_sites != honest:
                raise PlanError(
                    f"phase {phase.name} assumes {phase.honest_sites} honest of {phase.sites} "
                    f"sites, the plan {honest} of {self.sites}.",
                    "Every phase must make the plan's assumption.",
                )

    @property
    def trusts_server(self) -> bool:
        """Whether the server's noise is the only protection: see `Mechanism.trusts_server`."""
        return self.phases[0].mechanism.trusts_server

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which the plan makes a claim, each claim once."""
        return ("release",) if self.trusts_server else ("secure_sum", "site")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan: in each run, a site answers only one plan."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def check_roster(self, roster: Collection[bytes]) -> None:
        """Refuse a roster of another length than the plan's.

        Raises PlanError if there are more or fewer.
        """
        if len(roster) != self.sites:
            raise PlanError(
                f"The plan has {self.sites} sites, the list of peers {len(roster)}.",
                "Plan for the sites that are listed, or list the others.",
            )

    def number(self, phase: int, round_: int) -> int:
        """Number a round over all phases, from zero.

        Raises PlanError if it is not a round of the plan.
        """
        if not (0 <= phase < len(self.phases) and 0 <= round_ < self.phases[phase].rounds):
            raise PlanError(
                f"round {round_} of phase {phase} is not in the plan.", "Ask for a planned round."
            )
        return sum(p.rounds for p in self.phases[:phase]) + round_

    @property
    def rounds(self) -> int:
        """The number of rounds over all phases."""
        return sum(p.rounds for p in self.phases)

    def to_json(self) -> str:
        """Canonical JSON (sorted keys, exact floats)."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        own["model"] = self.model.to_dict()
        own["phases"] = [p.to_dict() for p in self.phases]
        return json.dumps(own, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Rebuild a plan, validating every field and the dimensions of its questions.

        Raises PlanError if a field is missing, unknown or out of range, or the text is not
        canonical.
        """
        try:
            with reading("The plan", PlanError, _HINT):
                raw: dict[str, Any] = parse_json(text)
                phases = tuple(PhasePlan.from_dict(phase) for phase in raw.pop("phases"))
                model = ModelConfig.from_dict(raw.pop("model"))
                plan = cls(phases=phases, model=model, **as_floats(cls, raw))
                plan._check_questions()
        except ConfigError as error:
            raise PlanError(f"The plan's {error.message}", _HINT) from None
        if plan.to_json() != text:
            raise PlanError("The plan is not in canonical form.", _HINT)
        return plan

    def _check_questions(self) -> None:
        for phase in self.phases:
            if phase.dimension != (asked := dimension_of(phase.name, self.model)):
                raise PlanError(
                    f"phase {phase.name} has {phase.dimension} coordinates, the plan's model "
                    f"needs {asked}.",
                    "Make the plan with `dppm plan`.",
                )
            if asked > _MOST_COORDINATES:
                raise PlanError(
                    f"phase {phase.name} asks for {asked} coordinates.",
                    f"A site answers at most {_MOST_COORDINATES}; plan a smaller model.",
                )

    def signs_seed(self, phase: int, round_: int) -> bytes:
        """Public seed of one round's rotation."""
        return f"{self.seed}/{self.run}/{phase}/{round_}".encode()

    def costs(self, view: View, rounds_done: int | None = None) -> tuple[RoundCost, ...]:
        """Costs of the whole plan, or of its first ``rounds_done`` rounds over all phases."""
        left = self.rounds if rounds_done is None else rounds_done
        costs = []
        for phase in self.phases:
            rounds = min(left, phase.rounds)
            left -= rounds
            if rounds:
                costs.append(phase.cost(view, rounds))
        return tuple(costs)

    def debit(self, phase: int, round_: int) -> Debit:
        """Return the ledger entry of one round."""
        p = self.phases[phase]
        return Debit(
            run=self.run,
            plan=self.digest,
            phase=p.name,
            round=round_,
            secure_sum=p.cost("secure_sum", 1),
            site=p.cost("site", 1),
            release=p.cost("release", 1),
        )
