"""Randomized response over directions: exact law, unbiased estimates, nothing but slots shows."""

from dataclasses import replace

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.stats import binom

from dppm_model.errors import ConfigError, DataError, PlanError
from dppm_model.mechanism.directions import DirectionsMechanism, alignment
from dppm_model.mechanism.rotation import Rotation
from dppm_model.phase import PhasePlan
from dppm_model.planner import make_plan
from dppm_model.planning.directions import DirectionsPlanner
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.directions import mu_directions, pure_epsilon
from tests.support.mutations import nothing, twin
from tests.support.plan_factory import MODEL, STEPS, SUMS, asked_privacy, with_mechanism
from tests.support.seeded_rng import SeededRNG, chi_square

DELTA = 1e-5
PHASE = PhasePlan(
    name="toy",
    mechanism=DirectionsMechanism(directions=16, truth_strength=0.3, slots=50),
    clip_norm=2.0,
    sampling_rate=0.5,
    rounds=1,
    dimension=30,
    sites=4,
    honest_sites=4,
    records=100,
    tail=1e-15,
)


def test_the_law_of_a_name() -> None:
    """Sampled records tell their name with theta times their length; all else is uniform."""
    response = DirectionsMechanism(8, 0.4, 3)
    coins, total = SeededRNG(1), np.zeros(8)
    for _ in range(20_000):
        total += response.counts(np.array([5, 2]), np.array([1.0, 0.5]), coins)
    expected = np.full(8, (0.6 + 0.8 + 1) / 8)
    expected[[5, 2]] += 0.4, 0.2
    assert chi_square(total, 20_000 * expected) > 1e-6
    assert total.sum() == 60_000


def test_uniform_numbers_are_exact_only_below_powers_of_two() -> None:
    coins = SeededRNG(3)
    for limit in (2, 64):
        assert (
            chi_square(np.bincount(coins.below(limit, 64_000)), np.full(limit, 64e3 / limit)) > 1e-6
        )
    with pytest.raises(ValueError, match="power of two"):
        coins.below(6, 1)


def test_alignment_is_the_mean_of_the_largest_coordinate() -> None:
    rng = np.random.default_rng(0)
    for rows, dimension in ((1, 1), (1, 8), (5, 8), (64, 64)):
        u = rng.normal(size=(100_000, dimension))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        expected = np.abs(u[:, :rows]).max(axis=1)
        assert alignment(rows, dimension) == pytest.approx(expected.mean(), rel=0.01)


def test_rows_are_public_different_and_change_with_the_seed() -> None:
    response, rotation = DirectionsMechanism(64, 0.1, 5), Rotation.of(3000)
    rows = response.rows(rotation, b"a")
    assert len(set(rows.tolist())) == 32 and rows.max() < rotation.padded
    assert (rows == response.rows(rotation, b"a")).all()
    assert (rows != response.rows(rotation, b"b")).any()


# What it costs.


@pytest.mark.parametrize(("truth", "k", "slots"), [(0.2, 4, 40), (0.05, 16, 500), (0.3, 64, 2000)])
@pytest.mark.parametrize("rounds", [1, 20])
def test_mu_is_near_the_exact_privacy_loss(truth: float, k: int, slots: int, rounds: int) -> None:
    """Against a distribution of privacy losses of the blanket's very histogram, composed."""
    tau = 1e-15
    b = int(binom.ppf(tau, slots - 1, 1 - truth)) - 1
    h = np.arange(b + 2)
    logs = binom.logpmf(h, b + 1, 1 / k)
    tilted = logs + np.log(1 - truth + truth * k * h / (b + 1))
    keep = logs > -60
    pair = [dict(zip(h[keep].tolist(), p[keep].tolist(), strict=True)) for p in (logs, tilted)]
    exact = max(
        pld.from_two_probability_mass_functions(*order, value_discretization_interval=1e-3)
        .self_compose(rounds)
        .get_epsilon_for_delta(DELTA)
        for order in (pair, pair[::-1])
    )
    mu = mu_directions(truth, k, slots, tau)
    claimed = epsilon([RoundCost(mu, 1.0, rounds, 3 * rounds * tau)], DELTA)
    assert exact * 0.99 < claimed < exact * 1.35


def test_more_answers_cost_less_and_more_truth_costs_more() -> None:
    base = mu_directions(0.1, 16, 1000, 1e-15)
    assert mu_directions(0.1, 16, 1100, 1e-15) < base < mu_directions(0.11, 16, 1000, 1e-15)
    assert mu_directions(0.1, 16, 1000, 1e-9) < base
    limit = 0.1 * np.sqrt(15 / 0.9 / 1e5)
    assert limit < mu_directions(0.1, 16, 100_000, 1e-15) < 1.05 * limit


def test_pure_epsilon_bounds_what_no_delta_would() -> None:
    cost = RoundCost(mu_directions(0.01, 4, 1, 1e-30), 1.0, 3, 3e-30, pure_epsilon(0.01, 4))
    assert epsilon([cost], 1e-11) <= 3 * pure_epsilon(0.01, 4)
    assert pure_epsilon(0.25, 4) == pytest.approx(np.log(1.75))


@pytest.mark.parametrize(
    ("k", "eps0", "rounds", "exact"),
    [(2, 0.1, 100, 4.306791), (2, 1.0, 100, 79.841322), (256, 2.0, 20, 10.598206)],
)
def test_golden_compositions_of_randomized_response(
    k: int, eps0: float, rounds: int, exact: float
) -> None:
    """Replace one record of a single slot, for the library that the accountant rests on."""
    redraw = k / (np.exp(eps0) + k - 1)
    one = pld.from_randomized_response(redraw, k, value_discretization_interval=1e-5)
    found = min(one.self_compose(rounds).get_epsilon_for_delta(DELTA), rounds * eps0)
    assert found == pytest.approx(exact, rel=2e-4)


# Plans.


@twin(
    "a site may hold more units than slots, so that one pushes another out",
    "dppm_model.phase:PhasePlan.check_units",
    nothing,
)
def test_what_cannot_be_planned_is_refused() -> None:
    asked = asked_privacy(4.0, "directions")
    many = replace(asked, mechanism=DirectionsPlanner(directions=1 << 20))
    with pytest.raises(ConfigError, match=r"mechanism\.directions is 1048576"):
        make_plan(many, [SUMS, STEPS], MODEL, run="x")
    with pytest.raises(ConfigError, match="Use noise"):
        replace(asked, calibrate="rounds", noise_multiplier=1.0)
    with pytest.raises(PlanError, match="directions is 6"):
        DirectionsMechanism(6, 0.1, 5)
    with pytest.raises(PlanError, match="Stay below 1"):
        DirectionsMechanism(4, 1.0, 5)
    with pytest.raises(PlanError, match="two a dimension"):
        with_mechanism(PHASE, directions=128)
    with pytest.raises(DataError, match="than the plan has slots"):
        PHASE.check_units(51)
    PHASE.check_units(50)
