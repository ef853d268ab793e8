"""The accountant: bounds from above, contracts of composition, no overshooting."""

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dppm_model.errors import ConfigError, PlanError
from dppm_model.privacy.accountant import (
    RoundCost,
    calibrate,
    calibrate_whole,
    choose_tau,
    delta,
    epsilon,
    rdp_epsilon,
    round_up,
)

DELTA = 1e-5


def gaussian_delta(mu: float, eps: float) -> float:
    """Closed form of one Gaussian round (Balle and Wang 2018)."""
    return norm.cdf(-eps / mu + mu / 2) - math.exp(eps) * norm.cdf(-eps / mu - mu / 2)


@pytest.mark.parametrize("mu", [0.1, 0.27, 1.0, 2.0, 5.0])
def test_one_round_equals_the_closed_form_from_above(mu: float) -> None:
    found = epsilon([RoundCost(mu, 1.0, 1)], DELTA)
    assert gaussian_delta(mu, found) <= DELTA
    assert gaussian_delta(mu, found * 0.998) > DELTA


def test_published_reference() -> None:
    assert epsilon([RoundCost(1.0, 0.068, 600)], DELTA) == pytest.approx(11.76, abs=5e-3)
    assert epsilon([RoundCost(1 / 1.15, 0.068, 600)], DELTA) == pytest.approx(9.11, abs=5e-3)


@pytest.mark.parametrize("q", [0.05, 1.0])
def test_composing_k_times_equals_composing_with_count_k(q: float) -> None:
    one, seven = RoundCost(0.4, q, 1, 1e-14), RoundCost(0.4, q, 7, 7e-14)
    assert epsilon([one] * 7, DELTA) == pytest.approx(epsilon([seven], DELTA), rel=1e-12)


def test_empty_costs_nothing_and_order_does_not_matter() -> None:
    a, b = RoundCost(0.7, 0.1, 50), RoundCost(0.2, 1.0, 3)
    assert epsilon([], DELTA) == 0 == delta([], 1.0)
    assert epsilon([RoundCost(0.7, 0.1, 0)], DELTA) == 0
    assert epsilon([a, b], DELTA) == epsilon([b, a], DELTA)


def test_monotone_in_everything() -> None:
    base = epsilon([RoundCost(0.8, 0.1, 100)], DELTA)
    assert epsilon([RoundCost(0.8, 0.1, 101)], DELTA) > base
    assert epsilon([RoundCost(0.8, 0.11, 100)], DELTA) > base
    assert epsilon([RoundCost(0.81, 0.1, 100)], DELTA) > base
    assert epsilon([RoundCost(0.8, 0.1, 100)], DELTA / 2) > base


@pytest.mark.parametrize("cost", [RoundCost(1.0, 0.068, 600), RoundCost(0.3, 1.0, 5)])
def test_renyi_is_never_below(cost: RoundCost) -> None:
    assert epsilon([cost], DELTA) <= rdp_epsilon([cost], DELTA) * 1.0001


def test_tails_are_paid_for() -> None:
    free, paid = RoundCost(1.0, 1.0, 1), RoundCost(1.0, 1.0, 1, 1e-9)
    assert epsilon([paid], DELTA) > epsilon([free], DELTA)
    eps = epsilon([paid], DELTA)
    assert gaussian_delta(1.0, eps) + (1 + math.exp(eps)) * 1e-9 <= DELTA
    assert math.isinf(epsilon([RoundCost(1.0, 1.0, 1, 1e-3)], DELTA))


def test_tau_keeps_the_tails_below_a_thousandth_of_delta() -> None:
    tau = choose_tau(epsilon=10, delta=DELTA, coordinates_times_rounds=10**8)
    assert (1 + math.exp(10)) * 2 * 10**8 * tau <= DELTA / 1000
    assert (1 + math.exp(10)) * 2 * 10**8 * tau * 10 > DELTA / 1000


@settings(max_examples=15, deadline=None)
@given(st.floats(0.2, 20), st.sampled_from([0.01, 0.2, 1.0]), st.integers(1, 40))
def test_calibration_never_overshoots(target: float, q: float, rounds: int) -> None:
    def costs(x: float) -> list[RoundCost]:
        return [RoundCost(x, q, rounds), RoundCost(x / 3, 1.0, 1)]

    found = calibrate(costs, epsilon=target, delta=DELTA, low=1e-3, high=50)
    assert epsilon(costs(found), DELTA) <= target
    assert found == 50 or epsilon(costs(found * 1.01), DELTA) > target


def test_the_last_affordable_round_fits_and_the_next_does_not() -> None:
    def costs(n: int) -> list[RoundCost]:
        return [RoundCost(0.5, 0.1, n)]

    target = epsilon(costs(37), DELTA)
    assert calibrate_whole(costs, epsilon=target, delta=DELTA, high=1000) == 37
    assert calibrate_whole(costs, epsilon=target * 0.9999, delta=DELTA, high=1000) == 36


def test_mu_and_noise_multiplier_are_not_swapped() -> None:
    """Twin: 1/mu in the place of mu would make more noise cost more."""
    assert epsilon([RoundCost(0.2, 1.0, 1)], DELTA) < epsilon([RoundCost(4.0, 1.0, 1)], DELTA)


def test_printed_digits_round_up() -> None:
    assert round_up(0.9991, 3) == 1.0
    assert round_up(1.234, 3) == 1.234
    assert round_up(46.2198578, 3) == 46.22


@pytest.mark.parametrize("bad", [0, 1, -1e-5, float("nan"), True])
def test_a_delta_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.delta"):
        epsilon([RoundCost(1.0, 1.0, 1)], bad)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_an_epsilon_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
        calibrate(lambda x: [RoundCost(x, 1.0, 1)], epsilon=bad, delta=DELTA, low=0.1, high=1)


def test_costs_are_validated() -> None:
    for fields in ({"mu": 0.0}, {"mu": math.inf}, {"sampling_rate": 1.5}, {"rounds": -1}):
        with pytest.raises(PlanError):
            RoundCost(**({"mu": 1.0, "sampling_rate": 1.0, "rounds": 1} | fields))


def test_upstream_still_ignores_the_count_of_randomized_response() -> None:
    """Why we do not hand randomized response to `dp_accounting`; fails when upstream is mended."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.RandomizedResponseDpEvent(noise_parameter=2 / (1 + math.e), num_buckets=2)
    accountant.compose(event, 100)
    assert accountant.get_epsilon(DELTA) < 1.1  # the truth is 79.84
