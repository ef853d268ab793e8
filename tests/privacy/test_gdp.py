"""The certified slopes: never below a reference of 120 digits, as published."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dppm_model.errors import PlanError
from dppm_model.privacy import gdp
from dppm_model.privacy.gdp import (
    mu_secure_sum,
    mu_site,
    probability_sensitivity,
    site_slope,
    sum_slope,
)
from tests.privacy import reference_gdp as reference


@pytest.mark.parametrize("m", [1, 2, 3, 7, 20, 64])
@pytest.mark.parametrize("theta", [1 / 32, 1 / 8, 0.4])
def test_site_slope_against_many_digits(m: int, theta: float) -> None:
    truth = reference.site_slope(m, theta)
    assert truth <= site_slope(m, theta) <= truth * (1 + 1e-6)


@pytest.mark.parametrize("answers", [1, 2, 5, 12])
@pytest.mark.parametrize(("theta", "tau"), [(1 / 16, 1e-3), (1 / 4, 1e-2), (0.4, 1e-12)])
def test_sum_slope_against_every_corner(answers: int, theta: float, tau: float) -> None:
    truth = reference.sum_slope(answers, theta, tau)
    assert truth <= sum_slope(answers, theta, tau) <= truth * (1 + 2.1e-3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_inside_of_the_box_is_never_worse_than_the_corners(data: st.DataObject) -> None:
    """Lemma 5, at arbitrary separate probabilities."""
    answers = data.draw(st.integers(2, 6))
    theta = data.draw(st.sampled_from([0.1, 0.25, 0.4]))
    inside = st.floats(0.5 - theta, 0.5 + theta)
    p = [mp.mpf(data.draw(inside)) for _ in range(answers)]
    assert reference.ratio(p[1:], p[0], mp.mpf(0.05)) <= sum_slope(answers, theta, 0.05)


def test_the_twin_that_leaves_thresholds_out_is_caught() -> None:
    """Without tangent lines (tails under tau skipped) the inside does exceed the corners."""
    theta, tau = 0.25, mp.mpf("0.2")
    p, others = mp.mpf("0.733"), [mp.mpf("0.25")]

    def kept(others: list, moved: mp.mpf) -> mp.mpf:
        y, best = reference.law(others), mp.mpf(0)
        for k in range(1, len(y) + 1):
            g = sum(y[k:], mp.mpf(0)) + moved * y[k - 1]
            if min(g, 1 - g) >= tau * (1 - mp.mpf("1e-6")):
                best = max(best, y[k - 1] / reference.density_at(g))
        return best

    corners = max(kept([mp.mpf(a)], mp.mpf(b)) for a in (0.25, 0.75) for b in (0.25, 0.75))
    inside = kept(others, p)
    assert float(corners) == pytest.approx(1.903, abs=2e-3)
    assert float(inside) == pytest.approx(2.678, abs=2e-2)
    assert inside > corners  # the twin's value is no bound …
    assert sum_slope(2, theta, 0.2) > inside  # … ours is
    assert sum_slope(2, theta, 0.2) == pytest.approx(2.784, abs=2e-3)


@pytest.mark.parametrize(
    ("theta", "m", "loss"),
    [(1 / 32, 1, 1.2572), (1 / 16, 64, 1.0172), (1 / 8, 16, 1.0716), (1 / 4, 1024, 1.2724)],
)
def test_published_site_losses(theta: float, m: int, loss: float) -> None:
    assert site_slope(m, theta) / (2 * m**0.5) == pytest.approx(loss, abs=6e-5)


@pytest.mark.parametrize(
    ("theta", "n", "m", "loss"),
    [
        *((1 / 32, 2, 1, 1.185), (1 / 16, 10, 64, 1.083), (1 / 8, 10, 1024, 1.078)),
        *((1 / 4, 10, 16, 2.668), (1 / 4, 2, 256, 1.801), (1 / 16, 100, 1024, 1.018)),
    ],
)
def test_published_sum_losses(theta: float, n: int, m: int, loss: float) -> None:
    slope = min(sum_slope(n * m, theta, 1e-22), site_slope(m, theta) / m)
    assert (n * m) ** 0.5 * slope / 2 == pytest.approx(loss, rel=2.1e-3)


def test_fewer_answers_are_worse() -> None:
    values = [sum_slope(m, 0.2, 1e-9) for m in (1, 3, 10, 40, 200)]
    assert values == sorted(values, reverse=True)


def test_a_plain_fft_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: tails of 1e-22 from a convolution with absolute error 1e-16."""
    right = sum_slope(3000, 0.1, 1e-22)

    def by_fft(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        size = len(x) + len(y) - 1
        return np.maximum(np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(y, size), size), 0)

    monkeypatch.setattr(np, "convolve", by_fft)
    law = gdp.convolve(gdp.binomial(1500, 0.6, 1e-30), gdp.binomial(1499, 0.4, 1e-30))
    wrong = gdp.slope_of_law(law, 0.6, 1e-22)
    monkeypatch.undo()
    law = gdp.convolve(gdp.binomial(1500, 0.6, 1e-30), gdp.binomial(1499, 0.4, 1e-30))
    assert gdp.slope_of_law(law, 0.6, 1e-22) <= right
    assert not 0.99 < wrong / gdp.slope_of_law(law, 0.6, 1e-22) < 1.01


def test_sensitivity_is_a_formula_of_the_plan() -> None:
    wide = {"clip_norm": 1.0, "range_": 4.0, "truth_strength": 0.1, "dimension": 1 << 20}
    delta = probability_sensitivity(**wide)
    assert 0.025 + 2.0**10 * 2.0**-32 <= delta < 0.0250003
    tight = probability_sensitivity(clip_norm=9.0, range_=1.0, truth_strength=0.1, dimension=1)
    assert tight == pytest.approx(0.2, rel=1e-6)


def test_site_view_is_never_better_than_the_sum() -> None:
    for m, n in ((1, 2), (16, 10), (64, 3)):
        site = mu_site(responses=m, truth_strength=0.1, sensitivity=0.01)
        total = mu_secure_sum(
            responses=m, truth_strength=0.1, sensitivity=0.01, honest_sites=n, tau=1e-20
        )
        assert total <= site
        assert total * n**0.5 >= site * 0.7


@pytest.mark.parametrize("theta", [0.0, 0.5, -0.1, float("nan")])
def test_a_truth_strength_outside_its_range_is_refused(theta: float) -> None:
    with pytest.raises(PlanError, match="truth_strength"):
        site_slope(4, theta)
