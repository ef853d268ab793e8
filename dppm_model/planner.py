"""From a target epsilon to a plan: how the budget is split between its phases.

Everything here reads the configuration only. The steps are: split mu^2 between the phases, scale
the split until the target is met and not passed, then let the mechanism choose its parameters.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dppm_model.aggregation import SECURE_SUM, honest_reports
from dppm_model.errors import DppmError, PlanError
from dppm_model.mechanism.base import VIEWS, View
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import RoundCost, epsilon, finite
from dppm_model.privacy.calibration import calibrate, calibrate_whole, choose_tau
from dppm_model.requests import PhaseRequest, PrivacyRequest
from dppm_model.score.model_config import ModelConfig

_MOST_ROUNDS = 100_000


def split(total_mu: float, phases: Sequence[PhaseRequest]) -> list[float]:
    """Give each phase the mu of one unsampled round that costs its fraction of total_mu^2.

    T rounds at rate q together cost about T min(mu^2, q^2 (e^(mu^2) - 1)): the first holds for
    q = 1, the second is the central limit of Poisson sampling (Bu et al. 2020, theorem 5). Only
    the split rests on it; what is spent is composed exactly.
    """
    shares = sum(p.budget_fraction for p in phases)
    return [
        _mu_of_cost(total_mu**2 * p.budget_fraction / shares / p.rounds, p.sampling_rate)
        for p in phases
    ]


def _mu_of_cost(cost: float, rate: float) -> float:
    return math.sqrt(max(cost, math.log1p(cost / rate**2)))


def _cost_of_mu(mu: float, rate: float) -> float:
    try:
        return min(mu**2, rate**2 * math.expm1(mu**2))
    except OverflowError:
        return mu**2


def ideal_costs(mus: Sequence[float], phases: Sequence[PhaseRequest]) -> list[RoundCost]:
    """Costs of ideal Gaussian phases with these mu."""
    return [RoundCost(mu, p.sampling_rate, p.rounds) for mu, p in zip(mus, phases, strict=True)]


def plan_phase(request: PhaseRequest, privacy: PrivacyRequest, mu: float, tail: float) -> PhasePlan:
    """Choose the mechanism's parameters with which a round of the phase costs at most ``mu``.

    Raises PlanError or ConfigError if there are none.
    """
    spec = privacy.spec(request, tail)
    try:
        found = privacy.mechanism.choose(spec, request.sum_alignment, privacy.view, mu)
    except DppmError as error:
        raise type(error)(f"phase {request.name}: {error.message}", error.hint) from None
    return PhasePlan.of(spec, name=request.name, mechanism=found, rounds=request.rounds)


def make_plan(
    privacy: PrivacyRequest,
    phases: Sequence[PhaseRequest],
    model: ModelConfig,
    *,
    run: str,
    seed: str | None = None,
) -> Plan:
    """Build the plan that spends `privacy.epsilon` and no more, for phases that ask by a model.

    Raises PlanError if the target cannot be met.
    """
    longest = max(range(len(phases)), key=lambda i: phases[i].rounds)
    most_rounds = [p.rounds for p in phases]
    if privacy.calibrate == "rounds":
        most_rounds[longest] = _MOST_ROUNDS
    planner = privacy.mechanism
    answers = sum(  # 2 tau each
        planner.answers(p.dimension) * rounds for p, rounds in zip(phases, most_rounds, strict=True)
    )
    tau = choose_tau(
        epsilon=privacy.epsilon, delta=privacy.delta, coordinates_times_rounds=max(1.0, answers)
    )
    # Ideal phases pay for the tails too, so that the certified plan cannot pass the target.
    ideal = phases if planner.samples else [replace(p, sampling_rate=1.0) for p in phases]
    ideal, mus = _calibrate(privacy, ideal, longest, 2 * answers * tau)
    phases = ideal if planner.samples else phases
    chosen = tuple(plan_phase(p, privacy, mu, tau) for p, mu in zip(phases, mus, strict=True))
    return Plan(
        run=run,
        seed=seed or secrets.token_hex(16),
        delta=privacy.delta,
        unit=privacy.unit,
        records_per_person=privacy.records_per_person,
        sites=privacy.sites,
        min_survivors=privacy.min_survivors,
        colluding_sites=privacy.colluding_sites,
        aggregation=SECURE_SUM,
        model=model,
        phases=chosen,
    )


def _calibrate(
    privacy: PrivacyRequest, phases: Sequence[PhaseRequest], longest: int, eta: float
) -> tuple[list[PhaseRequest], list[float]]:
    """Search for noise, rounds or rate; return the phases and the mu of their rounds."""

    def costs(changed: Sequence[PhaseRequest], mus: Sequence[float]) -> list[RoundCost]:
        first, *rest = ideal_costs(mus, changed)
        return [replace(first, total_variation=eta), *rest]

    def with_longest(**changes: Any) -> list[PhaseRequest]:
        return [replace(p, **changes) if i == longest else p for i, p in enumerate(phases)]

    target = {"epsilon": privacy.epsilon, "delta": privacy.delta}
    if privacy.noise_multiplier is None:
        total = calibrate(
            lambda mu: costs(phases, split(mu, phases)), **target, low=1e-4, high=50.0
        )
        return list(phases), split(total, phases)
    long = phases[longest]
    cost = long.rounds * _cost_of_mu(1 / privacy.noise_multiplier, long.sampling_rate)
    mus = split(
        math.sqrt(cost * sum(p.budget_fraction for p in phases) / long.budget_fraction), phases
    )
    if privacy.calibrate == "rate":
        rate = calibrate(
            lambda q: costs(with_longest(sampling_rate=q), mus), **target, low=1e-6, high=1.0
        )
        return with_longest(sampling_rate=rate), mus
    rounds = calibrate_whole(
        lambda n: costs(with_longest(rounds=max(n, 1)), mus), **target, high=_MOST_ROUNDS
    )
    if rounds == 0:
        raise PlanError(
            f"Not even one round fits into epsilon = {privacy.epsilon} with noise_multiplier "
            f"{privacy.noise_multiplier}.",
            "Raise privacy.noise_multiplier or privacy.epsilon.",
        )
    return with_longest(rounds=rounds), mus


def epsilons(plan: Plan, rounds_done: int | None = None) -> dict[View, float]:
    """Return epsilon in each view, of the first rounds or of all; infinite without protection."""
    return {view: epsilon(plan.costs(view, rounds_done), plan.delta) for view in VIEWS}


def epsilon_fields(plan: Plan, rounds_done: int | None = None) -> dict[str, float | None]:
    """Return `epsilons` as JSON files name them; None, never a number, without protection."""
    return {f"epsilon_{view}": finite(e) for view, e in epsilons(plan, rounds_done).items()}


def epsilon_if_colluding(plan: Plan) -> list[tuple[int, float]]:
    """Return the secure-sum epsilon if one more site than planned, or a third more, colludes.

    Numbers of sites that could open single reports are left out: there the site epsilon holds.
    A trusted server sees exact sums, so nothing can be weaker.
    """
    result: list[tuple[int, float]] = []
    if plan.trusts_server:
        return result
    for more in sorted({1, plan.sites // 3} - {0}):
        colluding = plan.colluding_sites + more
        with contextlib.suppress(PlanError):
            honest = honest_reports(plan.aggregation, plan.sites, plan.min_survivors, colluding)
            phases = tuple(replace(p, honest_sites=honest) for p in plan.phases)
            weaker = replace(plan, colluding_sites=colluding, phases=phases)
            result.append((more, epsilons(weaker)["secure_sum"]))
    return result


def adjacency(plan: Plan) -> str:
    """Describe which data sets are neighbours."""
    one = "one record" if plan.unit == "record" else "one person, with all their records,"
    return f"add or remove {one} at one site"


def summary(plan: Plan) -> dict[str, Any]:
    """Return the plan as ``privacy.json`` shows it, without the composed epsilons."""
    return {
        "unit": plan.unit,
        "records_per_person": plan.records_per_person,
        "adjacency": adjacency(plan),
        "delta": plan.delta,
        "honest_sites": plan.phases[0].honest_sites,
        "min_survivors": plan.min_survivors,
        "colluding_sites": plan.colluding_sites,
        "aggregation": plan.aggregation,
        "plan": plan.digest,
        "model": plan.model.digest,
        "phases": [
            p.to_dict() | {f"mu_{view}": finite(p.cost(view, 1).mu) for view in VIEWS}
            for p in plan.phases
        ],
    }
