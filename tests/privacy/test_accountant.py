"""The accountant: bounds from above, contracts of composition, no overshooting."""

import math
from itertools import product

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from deploy.show import round_up
from dppm_model.errors import ConfigError, PlanError
from dppm_model.privacy.accountant import RoundCost, delta, epsilon
from dppm_model.privacy.calibration import calibrate, calibrate_whole, choose_tau
from dppm_model.privacy.gdp import site_slope, sum_slope
from tests.support.mutations import twin

DELTA = 1e-5


def gaussian_delta(mu: float, eps: float) -> float:
    """Closed form of one Gaussian round (Balle and Wang 2018)."""
    return norm.cdf(-eps / mu + mu / 2) - math.exp(eps) * norm.cdf(-eps / mu - mu / 2)


# Bounds from above.


@pytest.mark.parametrize("mu", [0.05, 0.27, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("rounds", [1, 40])
@pytest.mark.parametrize("target", [1e-5, 1e-9])
def test_full_rounds_meet_the_closed_form_from_above(mu: float, rounds: int, target: float) -> None:
    found = epsilon([RoundCost(mu / math.sqrt(rounds), 1.0, rounds)], target)
    assert gaussian_delta(mu, found) <= target
    assert gaussian_delta(mu, found * 0.9995) > target
    assert target * 0.99 < delta([RoundCost(mu, 1.0, 1)], found) < target * 1.01


@pytest.mark.parametrize(("m", "q"), [(1, 1.0), (3, 1.0), (2, 0.5), (3, 0.2)])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_enumerated_transcripts_stay_below_the_claim(m: int, q: float, rounds: int) -> None:
    """Every transcript of a record that moves one coordinate of a site from lo to hi."""
    theta = 0.2
    without = binom.pmf(np.arange(m + 1), m, 0.5 - theta)
    moved = (1 - q) * without + q * binom.pmf(np.arange(m + 1), m, 0.5 + theta)

    def transcripts(one: np.ndarray) -> np.ndarray:
        return np.array([math.prod(path) for path in product(one, repeat=rounds)])

    pairs = (transcripts(moved), transcripts(without)), (transcripts(without), transcripts(moved))
    mu = site_slope(m, theta) * 2 * theta
    twin = 0.5 * mu
    caught = False
    for one, other in pairs:
        for e in (0.0, 0.1, 0.4, 1.0, 2.0):
            exact = np.maximum(one - math.exp(e) * other, 0).sum()
            assert exact <= delta([RoundCost(mu, q, rounds)], e)
            caught |= exact > delta([RoundCost(twin, q, rounds)], e)
    assert caught  # half the mu is not enough


@pytest.mark.parametrize("mu", [35.0, 60.0, 1000.0])
def test_epsilons_whose_exponentials_overflow(mu: float) -> None:
    """A tail bound of the closed form: delta(eps) <= Phi(-eps/mu + mu/2), nearly equal here."""
    found = epsilon([RoundCost(mu, 1.0, 1)], DELTA)
    exact = mu**2 / 2 - mu * norm.ppf(DELTA)
    assert exact * 0.998 < found < exact * 1.001


def test_a_delta_below_the_float_error_is_not_promised() -> None:
    assert math.isinf(epsilon([RoundCost(1.0, 0.1, 100)], 1e-14))
    assert epsilon([RoundCost(1.0, 0.1, 100)], 1e-11) < 20


# Published numbers.


@twin(
    "T rounds cost as much as one",
    "dppm_model.privacy.accountant:_gathered",
    lambda old: lambda costs: [(mu, q, 1) for mu, q, _ in old(costs)],
    only="[1.0-11.759]",
)
@pytest.mark.parametrize(
    ("mu", "published"),
    [(1.0, 11.759), (1 / 1.15, 9.109), (3.189, 214.78), (3.5001, 276.397), (0.6459, 5.658)],
)
def test_published_compositions(mu: float, published: float) -> None:
    found = epsilon([RoundCost(mu, 0.068, 600)], DELTA)
    assert found == pytest.approx(published, rel=2e-4)


@pytest.mark.parametrize(
    ("R", "theta", "m", "n", "published"),
    [
        (1, math.sqrt(10) / 64, 1024, 2, 94.162),
        (1, math.sqrt(10) / 64, 1024, 10, 12.281),
        (1 / 4, math.sqrt(10) / 64, 64, 10, 13.207),
        (4, 1 / 4, 484, 10, 16.159),
        (4, 1 / 4, 16, 10, 3.067),
        (4, 1 / 4, 16, 100, 0.422),
    ],
)
def test_published_plans(R: float, theta: float, m: int, n: int, published: float) -> None:
    """From m, theta, R/C and n to epsilon, the tails chosen by themselves (D = 2^20, T = 600)."""
    coordinates_times_rounds, tau = 600 * 2**20, 1e-26
    for _ in range(4):
        mu = min(m * sum_slope(n * m, theta, tau), site_slope(m, theta)) * theta / R
        eta = 2 * coordinates_times_rounds * tau
        found = epsilon([RoundCost(mu, 0.068, 600, eta)], DELTA)
        if math.isinf(found):  # the first tau may be too large: ask the sum without tails
            found = epsilon([RoundCost(mu, 0.068, 600)], DELTA)
        tau = choose_tau(
            epsilon=found, delta=DELTA, coordinates_times_rounds=coordinates_times_rounds
        )
    assert 0.99 * published < found <= 1.0002 * published  # s* to 0.2 % there, to 0.01 % here


# Contracts of composition.


@pytest.mark.parametrize("q", [0.05, 1.0])
def test_composing_k_times_equals_composing_with_count_k(q: float) -> None:
    one, seven = RoundCost(0.4, q, 1, 1e-14), RoundCost(0.4, q, 7, 7e-14)
    assert epsilon([one] * 7, DELTA) == pytest.approx(epsilon([seven], DELTA), rel=1e-12)


def test_empty_costs_nothing() -> None:
    assert epsilon([], DELTA) == 0 == delta([], 1.0)
    assert epsilon([RoundCost(0.7, 0.1, 0, 0.5)], DELTA) == 0


def test_order_does_not_matter() -> None:
    costs = [
        *(RoundCost(0.7, 0.1, 50, 1e-13), RoundCost(0.2, 1.0, 3)),
        *(RoundCost(0.7, 0.1, 50, 3e-12), RoundCost(0.3, 1.0, 2, 1e-14)),
    ]
    assert epsilon(costs, DELTA) == epsilon(costs[::-1], DELTA)
    assert delta(costs, 1.0) == delta(costs[::-1], 1.0)


@settings(max_examples=20, deadline=None)
@given(
    mu=st.floats(0.02, 3),
    q=st.sampled_from([0.02, 0.3, 0.9]),
    rounds=st.integers(1, 300),
    other=st.booleans(),
)
def test_monotone_in_everything(mu: float, q: float, rounds: int, other: bool) -> None:
    """Steps of 5 % of the rounds or more: a changed grid can hide what is far smaller."""
    rest = [RoundCost(0.3, 1.0, 2)] if other else []
    base = epsilon([RoundCost(mu, q, rounds), *rest], DELTA)
    assert epsilon([RoundCost(mu, q, rounds + 1 + rounds // 20), *rest], DELTA) > base
    assert epsilon([RoundCost(mu, q * 1.05, rounds), *rest], DELTA) > base
    assert epsilon([RoundCost(mu * 1.05, q, rounds), *rest], DELTA) > base
    assert epsilon([RoundCost(mu, q, rounds), *rest], DELTA / 2) > base
    assert epsilon([RoundCost(mu, q, rounds, 1e-20), *rest], DELTA) >= base
    more = RoundCost(mu, 1.0, 1 + rounds // 20)
    assert epsilon([RoundCost(mu, q, rounds), *rest, more], DELTA) > base


# Tails of Theorem 3.


@twin(
    "the tails of Theorem 3 are not accounted for",
    "dppm_model.privacy.accountant:_tails",
    lambda _: lambda eta, epsilon: 0.0,
    only="[1e-10]",
)
@pytest.mark.parametrize("eta", [1e-14, 1e-10, 1e-8, 3e-8])
def test_tails_are_paid_for(eta: float) -> None:
    free, paid = RoundCost(1.0, 1.0, 1), RoundCost(1.0, 1.0, 1, eta)
    eps = epsilon([paid], DELTA)
    assert gaussian_delta(1.0, eps) + (1 + math.exp(eps)) * eta <= DELTA
    assert delta([paid], eps) <= DELTA * (1 + 1e-6)
    assert eps >= epsilon([free], DELTA)
    # and no more is paid than must be
    shaved = eps * 0.998
    assert gaussian_delta(1.0, shaved) + (1 + math.exp(shaved)) * eta > DELTA


@pytest.mark.parametrize("mu", [1.0, 40.0])
def test_tails_that_pass_delta_have_no_epsilon(mu: float) -> None:
    assert math.isinf(epsilon([RoundCost(mu, 1.0, 1, 1e-6)], DELTA))


@pytest.mark.parametrize("target", [0.01, 1.0, 10.0, 300.0])
def test_tau_keeps_the_tails_below_a_thousandth_of_delta(target: float) -> None:
    tau = choose_tau(epsilon=target, delta=DELTA, coordinates_times_rounds=10**8)
    assert (1 + math.exp(target)) * 2 * 10**8 * tau <= DELTA / 1000 * (1 + 1e-9)
    assert (1 + math.exp(target)) * 2 * 10**8 * tau * 10 > DELTA / 1000


def test_tau_refuses_what_no_float_can_hold() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon is 900"):
        choose_tau(epsilon=900.0, delta=DELTA, coordinates_times_rounds=10**8)
    with pytest.raises(PlanError, match="Coordinates"):
        choose_tau(epsilon=1.0, delta=DELTA, coordinates_times_rounds=0)


# Calibration.


@settings(max_examples=12, deadline=None)
@given(st.floats(0.2, 20), st.sampled_from([0.01, 0.2, 1.0]), st.integers(1, 40))
def test_calibration_never_overshoots(target: float, q: float, rounds: int) -> None:
    def costs(x: float) -> list[RoundCost]:
        return [RoundCost(x, q, rounds, 1e-14), RoundCost(x / 3, 1.0, 1)]

    found = calibrate(costs, epsilon=target, delta=DELTA, low=1e-3, high=50)
    assert epsilon(costs(found), DELTA) <= target
    assert found == 50 or epsilon(costs(found * 1.01), DELTA) > target


def test_the_last_affordable_round_fits_and_the_next_does_not() -> None:
    def costs(n: int) -> list[RoundCost]:
        return [RoundCost(0.5, 0.1, n)]

    target = epsilon(costs(37), DELTA)
    assert calibrate_whole(costs, epsilon=target, delta=DELTA, high=1000) == 37
    assert calibrate_whole(costs, epsilon=target * 0.9999, delta=DELTA, high=1000) == 36
    assert calibrate_whole(costs, epsilon=target, delta=DELTA, high=20) == 20
    assert calibrate_whole(costs, epsilon=1e-4, delta=DELTA, high=20) == 0


def test_what_was_spent_before_may_leave_nothing() -> None:
    spent = RoundCost(2.0, 1.0, 1)
    assert calibrate_whole(lambda n: [spent] * n, epsilon=1.0, delta=DELTA, high=9) == 0
    with pytest.raises(PlanError, match="noisiest"):
        calibrate(
            lambda x: [spent, RoundCost(x, 1.0, 1)], epsilon=1.0, delta=DELTA, low=0.1, high=9
        )
    with pytest.raises(PlanError, match="low"):
        calibrate(lambda x: [RoundCost(x, 1.0, 1)], epsilon=1.0, delta=DELTA, low=0.0, high=9)


# Printing and refusing.


@twin("printed digits are rounded to nearest", "deploy.show:round_up", lambda _: round)
@given(st.floats(0, 1e6), st.integers(0, 6))
@example(0.1 + 0.2, 1)
@example(1.0000000000001, 3)
def test_printed_digits_are_never_below_the_value(value: float, digits: int) -> None:
    printed = round_up(value, digits)
    assert value <= printed < value + 10.0**-digits * (1 + 1e-9)
    assert f"{printed:.{digits}f}" == f"{float(f'{printed:.{digits}f}'):.{digits}f}"
    assert float(f"{printed:.{digits}f}") == printed


@pytest.mark.parametrize("bad", [0, 1, -1e-5, float("nan"), True])
def test_a_delta_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.delta"):
        epsilon([RoundCost(1.0, 1.0, 1)], bad)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), True])
def test_an_epsilon_outside_its_range_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
        calibrate(lambda x: [RoundCost(x, 1.0, 1)], epsilon=bad, delta=DELTA, low=0.1, high=1)
    with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
        delta([RoundCost(1.0, 1.0, 1)], bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("mu", bad) for bad in (0.0, -1.0, math.nan, True)),
        *(("sampling_rate", bad) for bad in (0.0, 1.5, math.nan, True)),
        *(("rounds", bad) for bad in (-1, 2.0, True)),
        *(("total_variation", bad) for bad in (-1e-9, 1.0, math.nan)),
    ],
)
def test_costs_are_validated(field: str, value: float) -> None:
    with pytest.raises(PlanError, match=field):
        RoundCost(**({"mu": 1.0, "sampling_rate": 1.0, "rounds": 1} | {field: value}))


def test_what_is_not_protected_costs_infinitely_much() -> None:
    bare = RoundCost(math.inf, 1.0, 1)
    assert epsilon([RoundCost(1.0, 1.0, 1), bare], DELTA) == math.inf


def test_upstream_still_ignores_the_count_of_randomized_response() -> None:
    """Why we do not hand randomized response to `dp_accounting`; fails when upstream is mended."""
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.RandomizedResponseDpEvent(noise_parameter=2 / (1 + math.e), num_buckets=2)
    accountant.compose(event, 100)
    claimed = accountant.get_epsilon(DELTA)
    truth = pld.from_randomized_response(2 / (1 + math.e), 2).self_compose(100)
    assert truth.get_epsilon_for_delta(DELTA) == pytest.approx(79.841, abs=0.05)
    assert claimed < 1.1, "upstream counts now: drop the warning of PRIVACY.md and this test"
