"""Epsilons of the shipped plans against a second accountant that shares no code with the first."""

from functools import cache
from math import exp, pi, sqrt
from typing import Any

import numpy as np
import pytest
from mpmath import mpf
from scipy.integrate import quad
from scipy.special import ndtr

from deploy.simulate import plan_of
from dppm_model.config import check_config, compose_config
from dppm_model.planner import epsilon_fields, summary
from tests.privacy import independent
from tests.privacy import reference_gdp as reference

FACTS = ["facts.shape=[1,28,28]", "facts.classes=10", "facts.records=60000"]
RECORDS = ["privacy.unit=record", "privacy.records_per_person=1"]
PLANS = {
    "epsilon 10": [],
    "epsilon 1": ["privacy.epsilon=1"],
    "site view, epsilon 20": ["privacy.view=site", "privacy.epsilon=20"],
    "8 of 10 sites, 1 colludes": ["privacy.min_survivors=8", "privacy.colluding_sites=1"],
    "residual": ["model=residual"],
}
VIEWS = ("secure_sum", "site")
TRUTH = 1 - 2e-4  # the second accountant's numerical error, generously
SLACK = 1.005  # the package's slopes are certified to 0.2 percent, from above


@cache
def shipped(name: str) -> dict[str, Any]:
    """Return a plan as `dppm plan --json` prints it, for data such as MNIST."""
    plan = plan_of(check_config(compose_config([*FACTS, *RECORDS, *PLANS[name]])), "plan")
    return summary(plan) | epsilon_fields(plan)


def agrees(printed: float, truth: float) -> bool:
    return truth * TRUTH <= printed <= truth * SLACK


@pytest.mark.parametrize("name", PLANS)
def test_a_shipped_plan_prints_the_epsilon_of_the_second_accountant(name: str) -> None:
    plan = shipped(name)
    for view in VIEWS:
        printed, truth = plan[f"epsilon_{view}"], independent.epsilon_of(plan, view)
        print(f"{name:26} {view:10} {printed:9.4f} {truth:9.4f} {printed / truth - 1:+.5f}")
        assert agrees(printed, truth), view


@pytest.mark.parametrize("name", PLANS)
def test_the_slopes_of_a_shipped_plan_are_never_below_the_second_accountants(name: str) -> None:
    for phase in shipped(name)["phases"]:
        site = phase["mu_site"] / independent.mu_of(phase, "site")
        secure_sum = phase["mu_secure_sum"] / independent.mu_of(phase, "secure_sum")
        assert 1 - 1e-10 < site < 1 + 1e-7
        assert 1 - 1e-10 < secure_sum < 1.0025


def without_tail_lines(answers: int, theta: float, tau: float) -> float:
    return independent.corner_slope(answers, theta, tau * 1e-40, 0)


def of_one_site_less(answers: int, theta: float, tau: float) -> float:
    return independent.corner_slope(answers * 9 // 10, theta, tau, 0)


def of_an_ideal_gaussian(answers: int, theta: float, tau: float) -> float:
    return 2 / sqrt(answers)


@pytest.mark.parametrize("twin", [without_tail_lines, of_one_site_less, of_an_ideal_gaussian])
def test_a_broken_twin_does_not_agree(twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = shipped("epsilon 10")
    monkeypatch.setattr(independent, "sum_slope", twin)
    assert not agrees(plan["epsilon_secure_sum"], independent.epsilon_of(plan, "secure_sum"))


def test_one_order_alone_does_not_agree() -> None:
    plan = shipped("residual")
    rounds = [(p["mu_site"], p["sampling_rate"], p["rounds"]) for p in plan["phases"]]
    removed = independent.Loss(rounds, add=False, delta=plan["delta"])
    assert removed.delta(removed.bracket[1]) < plan["delta"]  # so its epsilon is smaller than this
    assert not agrees(plan["epsilon_site"], removed.bracket[1])


# The second accountant itself.


def test_a_corner_agrees_with_the_reference_of_many_digits() -> None:
    answers, theta, tau, j = 60, 0.125, 1e-26, 16
    others = [mpf(0.5 + theta)] * j + [mpf(0.5 - theta)] * (answers - 1 - j)
    best = max(reference.ratio(others, mpf(0.5 + sign * theta), mpf(tau)) for sign in (-1, 1))
    assert independent.corner_slope(answers, theta, tau, j) == pytest.approx(float(best), rel=1e-9)


def test_scanned_corners_reach_the_maximum_over_all() -> None:
    """The outer corners hold the largest slope of all, in sums small enough to try all."""
    for answers, theta in ((64, 0.25), (300, 0.1), (1000, 0.06)):
        outer = max(independent.corner_slope(answers, theta, 1e-20, j) for j in (0, answers - 1))
        assert outer == pytest.approx(independent.sum_slope(answers, theta, 1e-20), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANS)
def test_no_scanned_corner_is_above_the_slope(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independent, "SCAN", 400)
    for phase in shipped(name)["phases"]:
        assert independent.mu_of(phase, "secure_sum") < phase["mu_secure_sum"]


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize(("mu", "rounds"), [(0.1, 3), (1.0, 4), (5.0, 2)])
def test_the_contour_of_gaussian_rounds_is_closed_form(mu: float, rounds: int, add: bool) -> None:
    loss = independent.Loss([(mu, 1.0, rounds)], add, 1e-5)
    for epsilon in np.linspace(*loss.bracket, 5):
        delta = independent.gaussian_delta(epsilon, mu * sqrt(rounds))
        if 1e-9 < delta < 1e-2:
            assert loss.delta(epsilon) == pytest.approx(delta, rel=1e-7)


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize(("mu", "q", "other"), [(1.5, 0.034, 0.7), (4.5, 0.034, 2.0), (1, 0.5, 1)])
def test_the_contour_of_a_sampled_and_a_gaussian_round_is_a_plain_integral(
    mu: float, q: float, other: float, add: bool
) -> None:
    loss = independent.Loss([(mu, q, 1), (other, 1.0, 1)], add, 1e-4)

    def integrand(x: float, epsilon: float) -> float:
        ratio = 1 - q + q * exp(mu * x - mu**2 / 2)
        law = exp(-(x**2) / 2) / sqrt(2 * pi) * (ratio if add else 1)
        return law * independent.gaussian_delta(
            epsilon - float(np.log(ratio)) * (1 if add else -1), other
        )

    used = 0
    for epsilon in np.linspace(*loss.bracket, 15):
        delta = quad(integrand, -12, 12 + mu, (epsilon,), epsabs=0, epsrel=1e-9, limit=500)[0]
        if 1e-7 < delta < 1e-2:
            used += 1
            assert loss.delta(epsilon) == pytest.approx(delta, rel=1e-6)
    assert used >= 2


def test_the_contour_of_one_sampled_round_is_its_closed_form() -> None:
    """One round alone, whose loss is bounded below: the slowest integrand there is."""
    mu, q = 2.0, 0.2
    loss = independent.Loss([(mu, q, 1)], True, 1e-3)
    for epsilon in (2.0, 3.0, 4.0):
        x = (np.log((exp(epsilon) - 1 + q) / q) + mu**2 / 2) / mu
        delta = q * ndtr(mu - x) + (1 - q - exp(epsilon)) * ndtr(-x)
        assert loss.delta(epsilon) == pytest.approx(delta, rel=1e-4)
