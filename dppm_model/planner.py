"""From a target epsilon to a plan: how the budget is split, which R, m and theta spend it best.

Everything here reads the configuration only. The steps are: split mu^2 between the phases, scale
the split until the target is met and not passed, then give each phase the fewest bits with which
randomized response costs at most `MOST_LOSS` more mu than an ideal Gaussian of the same noise.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scipy.special import ndtri

from dppm_model.aggregation import SECURE_SUM, honest_reports
from dppm_model.errors import PlanError
from dppm_model.mechanism.binomial import BinomialResponse
from dppm_model.mechanism.quantize import CLIP_NORM
from dppm_model.mechanism.rotation import Rotation
from dppm_model.phase import PhasePlan, View
from dppm_model.plan import Plan
from dppm_model.planner_directions import choose_directions
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.calibration import calibrate, calibrate_whole, choose_tau
from dppm_model.requests import PhaseRequest, PrivacyRequest, phase_plan
from dppm_model.score.model_config import ModelConfig

MOST_LOSS = 1.03
_MOST_ROUNDS = 100_000
# Coordinates of the rotated sum are close to normal; R at 4.5 deviations clamps one in 150,000.
_RANGE_DEVIATIONS = 4.5
_MOST_ANSWERS = 1 << 19  # n m beyond this makes the accountant slow: ask in more rounds


def split(total_mu: float, phases: Sequence[PhaseRequest]) -> list[float]:
    """Give each phase the mu of one unsampled round, that costs its fraction of total_mu^2.

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


def clamp_deviation(request: PhaseRequest, privacy: PrivacyRequest) -> float:
    """Expected standard deviation of a rotated coordinate of one site's sum, in units of a vector.

    A sum of B vectors of norm C has norm up to sum_alignment·B·C, plus sqrt(B)·C for what cancels;
    the rotation spreads it over D coordinates.
    """
    batch = request.sampling_rate * privacy.records / privacy.sites
    norm = CLIP_NORM * math.hypot(request.sum_alignment * batch, math.sqrt(batch))
    return norm / math.sqrt(Rotation.of(request.dimension).padded)


def expected_loss(answers: float, theta: float, tau: float) -> float:
    """Rule of thumb for mu over the ideal Gaussian's; never used to account."""
    sigma = math.sqrt(answers * (0.25 - theta**2))
    return math.exp(5 * theta * -float(ndtri(tau)) / (3 * sigma)) / math.sqrt(1 - 4 * theta**2)


def choose_response(
    request: PhaseRequest, privacy: PrivacyRequest, mu: float, tau: float
) -> PhasePlan:
    """Choose R, then the fewest bits b, with m = floor((2^b - 1)/N), that keep the loss in bounds.

    An ideal Gaussian with the noise of the answers of n sites has mu = 2 sqrt(m/n) theta C/R; ours
    is `loss` times that. Larger m means smaller theta, and both make the loss smaller.

    Raises
    ------
    PlanError
        If not even `_MOST_ANSWERS` answers are enough.
    """
    range_ = _RANGE_DEVIATIONS * clamp_deviation(request, privacy)
    n = privacy.honest_sites if privacy.view == "secure_sum" else 1
    for bits in range(1, _MOST_ANSWERS.bit_length() + 1):
        m = ((1 << bits) - 1) // privacy.sites
        if not 1 <= m <= _MOST_ANSWERS // n:
            continue
        theta, loss = 0.0, 1.0
        for _ in range(6):  # the rule of thumb depends on theta
            theta = mu * range_ / (2 * CLIP_NORM * loss) * math.sqrt(n / m)
            if theta > 0.25:
                break
            loss = expected_loss(n * m, theta, tau)
        if theta > 0.25 or loss > MOST_LOSS + 0.01:
            continue
        phase = phase_plan(request, privacy, BinomialResponse(range_, theta, m), tau)
        phase = _certify(phase, privacy.view, mu)
        if loss_of(phase, privacy.view) <= MOST_LOSS:
            return phase
    raise PlanError(
        f"phase {request.name}: no number of answers up to {_MOST_ANSWERS} in the sum gives the "
        f"noise that epsilon = {privacy.epsilon} needs.",
        "Lower its budget_fraction or sampling_rate, raise its rounds, or raise privacy.epsilon.",
    )


def _certify(phase: PhasePlan, view: View, mu: float) -> PhasePlan:
    """Adjust theta until the certified mu meets the target from below."""
    for _ in range(20):
        now = phase.cost(view, 1).mu
        if mu * 0.9995 <= now <= mu:
            break
        theta = phase.response.truth_strength * (mu / now) * (1 - 1e-4)
        phase = replace(phase, response=replace(phase.response, truth_strength=theta))
    return phase


def loss_of(phase: PhasePlan, view: View) -> float:
    """Return mu over that of an ideal Gaussian with the same noise at the server (1 is perfect)."""
    sites = phase.honest_sites if view == "secure_sum" else 1
    noise = phase.noise_std(sites) * phase.divisor
    return phase.cost(view, 1).mu * noise / phase.clip_norm


def make_plan(
    privacy: PrivacyRequest,
    phases: Sequence[PhaseRequest],
    model: ModelConfig,
    *,
    run: str,
    seed: str | None = None,
) -> Plan:
    """Build the plan that spends `privacy.epsilon` and no more, for phases that ask by a model.

    Raises
    ------
    PlanError
        If the target cannot be met.
    """
    longest = max(range(len(phases)), key=lambda i: phases[i].rounds)
    most_rounds = [p.rounds for p in phases]
    if privacy.calibrate == "rounds":
        most_rounds[longest] = _MOST_ROUNDS
    names_directions = privacy.mechanism.name == "directions"
    answers = sum(  # 2 tau a coordinate and round; 3 tau a round where directions are named
        1.5 * rounds if names_directions else Rotation.of(p.dimension).padded * rounds
        for p, rounds in zip(phases, most_rounds, strict=True)
    )
    tau = choose_tau(epsilon=privacy.epsilon, delta=privacy.delta, coordinates_times_rounds=answers)
    # Ideal phases pay for the tails too, so that the certified plan cannot pass the target.
    if names_directions:
        ideal = [replace(p, sampling_rate=1.0) for p in phases]  # sampling is in the names' cost
        mus = _calibrate(privacy, ideal, longest, 2 * answers * tau)[1]
        choose = choose_directions
    else:
        phases, mus = _calibrate(privacy, phases, longest, 2 * answers * tau)
        choose = choose_response
    chosen = tuple(choose(p, privacy, mu, tau) for p, mu in zip(phases, mus, strict=True))
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


def epsilons(plan: Plan, rounds_done: int | None = None) -> tuple[float, float]:
    """Epsilon in the secure-sum view and in the site view, of the first rounds or of all."""
    return (
        epsilon(plan.costs("secure_sum", rounds_done), plan.delta),
        epsilon(plan.costs("site", rounds_done), plan.delta),
    )


def epsilon_if_colluding(plan: Plan) -> list[tuple[int, float]]:
    """Return the secure-sum epsilon if one site, or a third, told the server more than planned.

    A number of sites that could open single reports is left out: there the site epsilon holds.
    """
    result = []
    for more in sorted({1, plan.sites // 3} - {0}):
        colluding = plan.colluding_sites + more
        with contextlib.suppress(PlanError):
            honest = honest_reports(plan.aggregation, plan.sites, plan.min_survivors, colluding)
            phases = tuple(replace(p, honest_sites=honest) for p in plan.phases)
            weaker = replace(plan, colluding_sites=colluding, phases=phases)
            result.append((more, epsilons(weaker)[0]))
    return result
