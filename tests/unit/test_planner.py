"""The planner: meets the target from below, spends it well, and refuses what cannot be."""

import math
from dataclasses import replace

import pytest

from dppm_model.config import check_config, compose_config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.base import View
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.phase import PhasePlan
from dppm_model.planner import epsilons, make_plan, split
from dppm_model.planning.base import noise_ratio
from dppm_model.planning.binomial import MOST_LOSS, clamp_deviation
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.requests import PhaseRequest, PrivacyRequest
from tests.support.mutations import twin
from tests.support.plan_factory import MODEL

PRIVACY = PrivacyRequest(
    epsilon=8.0,
    delta=1e-5,
    view="secure_sum",
    unit="record",
    records_per_person=1,
    sites=5,
    records=5_000,
    min_survivors=5,
    colluding_sites=0,
)
SUMS = PhaseRequest("sums", 5000, 1.0, 1, 0.4, 0.02)
STEPS = PhaseRequest("steps", 20_000, 0.03, 50, 0.6, 0.5)


def loss_of(phase: PhasePlan, view: View) -> float:
    return noise_ratio(phase.mechanism, phase, view)


@pytest.mark.parametrize("target", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("view", ["secure_sum", "site"])
def test_the_target_is_met_from_below_at_little_loss(target: float, view: str) -> None:
    privacy = replace(PRIVACY, epsilon=target, view=view)  # type: ignore[arg-type]
    plan = make_plan(privacy, [SUMS, STEPS], MODEL, run="x")
    found = epsilons(plan)
    assert 0.985 * target < found[view] <= target
    assert found["secure_sum"] <= found["site"]
    for phase in plan.phases:
        assert loss_of(phase, view) <= MOST_LOSS  # type: ignore[arg-type]
        alignment = next(p.sum_alignment for p in (SUMS, STEPS) if p.name == phase.name)
        assert phase.mechanism.range_ > 4 * clamp_deviation(phase, alignment)


def test_one_bit_less_would_lose_more() -> None:
    plan = make_plan(PRIVACY, [STEPS], MODEL, run="x")
    phase = plan.phases[0]
    fewer = ((1 << (phase.bits - 1)) - 1) // 5
    theta = phase.mechanism.truth_strength * (phase.mechanism.responses / fewer) ** 0.5
    weaker = replace(phase, mechanism=BinomialMechanism(phase.mechanism.range_, theta, fewer))
    assert loss_of(weaker, "secure_sum") > MOST_LOSS


@twin(
    "the noise of colluding and missing sites is counted on",
    "dppm_model.mechanism.base:RoundSpec.reports_in",
    lambda _: lambda self, view: 1 if view == "site" else self.sites,
)
def test_fewer_honest_sites_cost_noise() -> None:
    all_honest = make_plan(PRIVACY, [SUMS], MODEL, run="x").phases[0]
    half = make_plan(replace(PRIVACY, min_survivors=3), [SUMS], MODEL, run="x").phases[0]
    assert half.noise_std(5) > 1.2 * all_honest.noise_std(5)
    assert half.cost("secure_sum", 1).mu <= all_honest.cost("secure_sum", 1).mu * 1.001


@pytest.mark.parametrize(("rate", "rounds"), [(1.0, 4), (0.5, 10), (0.03, 450), (0.01, 1000)])
@pytest.mark.parametrize("total", [0.3, 1.0, 1.9])
def test_a_share_is_what_the_phase_costs(rate: float, rounds: int, total: float) -> None:
    """Alone, a phase with the whole budget costs about what one unsampled round of it would."""
    (mu,) = split(total, [replace(STEPS, sampling_rate=rate, rounds=rounds)])
    whole = epsilon([RoundCost(total, 1.0, 1)], 1e-5)
    assert whole * 0.999 <= epsilon([RoundCost(mu, rate, rounds)], 1e-5) < 1.4 * whole


def test_shares_split_the_cost() -> None:
    sums, steps = split(1.0, [SUMS, STEPS])
    assert sums**2 == pytest.approx(0.4)
    assert 50 * 0.03**2 * math.expm1(steps**2) == pytest.approx(0.6)


def test_calibration_by_rounds_and_by_rate() -> None:
    rounds = make_plan(
        replace(PRIVACY, epsilon=4.0, noise_multiplier=1.0, calibrate="rounds"),
        [STEPS],
        MODEL,
        run="x",
    )
    assert rounds.phases[0].rounds > 50
    assert 3.9 < epsilons(rounds)["secure_sum"] <= 4.0
    rate = make_plan(
        replace(PRIVACY, epsilon=4.0, noise_multiplier=1.0, calibrate="rate"),
        [STEPS],
        MODEL,
        run="x",
    )
    assert rate.phases[0].rounds == 50
    assert 3.9 < epsilons(rate)["secure_sum"] <= 4.0
    with pytest.raises(PlanError, match="Not even one round"):
        make_plan(
            replace(PRIVACY, calibrate="rounds", noise_multiplier=0.05), [SUMS], MODEL, run="x"
        )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"epsilon": float("nan")}, "epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"delta": 2.1e-4}, "delta is 0.00021 with 5000 records"),
        ({"delta": 1e-300}, "delta is 1e-300: too small"),
        ({"min_survivors": 6}, "min_survivors"),
        ({"colluding_sites": 5}, "colluding_sites"),
        ({"min_survivors": 2}, "min_survivors"),
        ({"colluding_sites": -1}, "colluding_sites"),
        ({"calibrate": "luck"}, "calibrate"),
        ({"calibrate": "rounds"}, "noise_multiplier"),
        ({"noise_multiplier": 1.0}, "noise_multiplier"),
    ],
)
def test_requests_are_checked(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=f"privacy.{field}"):
        replace(PRIVACY, **changes)


def test_a_large_delta_needs_insistence() -> None:
    assert replace(PRIVACY, delta=2e-4).delta == 2e-4  # one over the records
    assert replace(PRIVACY, delta=0.5, large_delta=True).delta == 0.5


def test_a_target_out_of_reach_is_refused() -> None:
    with pytest.raises(PlanError):
        make_plan(replace(PRIVACY, epsilon=1e-7), [STEPS], MODEL, run="x")


@pytest.mark.parametrize("side", [8, 10, 12])
def test_many_records_of_few_pixels_can_be_planned(side: int) -> None:
    """Their noise would take more answers than are allowed: the run spends less than it may."""
    facts = [f"facts.shape=[1,{side},{side}]", "facts.classes=2", "facts.records=20000"]
    config = check_config(compose_config([*facts, "privacy.unit=record"]))
    config = config.replace(privacy=config.privacy.of_unit("record"))
    made = make_plan(
        config.privacy_request(), config.phase_requests(), config.score_model(), run="x"
    )
    assert 4.0 < epsilons(made)["secure_sum"] <= 10.0
