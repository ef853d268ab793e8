"""The certified slopes: never below a reference of 120 digits, never far above, and as published.

`reference_gdp` shares no code with the package: it is written from the formulas, by brute force.
"""

import math
from dataclasses import replace
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dppm_model.errors import PlanError
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.privacy import gdp
from dppm_model.privacy.gdp import (
    mu_secure_sum,
    mu_site,
    probability_sensitivity,
    site_slope,
    sum_slope,
)
from dppm_model.privacy.tails import binomial
from tests.privacy import reference_gdp as reference
from tests.support.mutations import times, twin
from tests.support.plan_factory import TOY, with_mechanism


@twin("s is one per cent too small", "dppm_model.privacy.gdp:site_slope", times(0.99))
@pytest.mark.parametrize("m", [1, 2, 3, 7, 20, 64])
@pytest.mark.parametrize("theta", [1 / 32, 1 / 8, 0.4])
def test_site_slope_against_many_digits(m: int, theta: float) -> None:
    truth = reference.site_slope(m, theta)
    assert truth <= site_slope(m, theta) <= truth * (1 + 1e-6)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_the_worst_probability_is_the_outermost(m: int) -> None:
    """Lemma 4: within the range no probability is worse than hi."""
    for p in np.linspace(0.5 - 0.3, 0.5 + 0.3, 31):
        assert m * reference.ratio([mp.mpf(p)] * (m - 1), mp.mpf(p), None) <= site_slope(m, 0.3)


@twin("s* is one per cent too small", "dppm_model.privacy.gdp:sum_slope", times(0.99))
@pytest.mark.parametrize("answers", [1, 2, 5, 12])
@pytest.mark.parametrize(("theta", "tau"), [(1 / 16, 1e-3), (1 / 4, 1e-2), (0.4, 1e-12)])
def test_sum_slope_against_every_corner(answers: int, theta: float, tau: float) -> None:
    truth = reference.sum_slope(answers, theta, tau)
    assert truth <= sum_slope(answers, theta, tau) <= truth * (1 + 2.1e-3)
    assert truth <= sum_slope(answers, theta, tau, 1e-5) <= truth * (1 + 1.1e-5)


def test_pieces_are_bounded_by_their_smallest_law() -> None:
    """Lemma 7, which the sweep rests on."""
    bound = gdp.corner(5, 9, 0.2, 1e-9)
    assert all(gdp.corner(5 + i, 9 + 6 - i, 0.2, 1e-9) <= bound for i in range(7))


def _outermost_corners_only(_: Any) -> Any:
    from dppm_model.privacy import gdp

    return lambda answers, theta, tau, tol=0.0: max(
        gdp.corner(0, answers - 1, theta, tau), gdp.corner(answers - 1, 0, theta, tau)
    )


@twin(
    "only the two outermost corners are tried",
    "dppm_model.privacy.gdp:sum_slope",
    _outermost_corners_only,
    only="[0.05-4321]",
)
@pytest.mark.parametrize("worst", [0, 1, 17, 4321, 9998, 9999])
@pytest.mark.parametrize("height", [1e-5, 3e-4, 0.05])
def test_the_sweep_finds_the_worst_corner_wherever_it_is(
    worst: int, height: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true slope is largest at an end; here a made-up one, monotone as by Lemma 7, is not."""
    answers, calls = 10_000, []

    def corner(a: int, b: int, *_: float) -> float:
        calls.append((a, b))
        nearest = min(max(worst, a), answers - 1 - b)  # to the worst, of those in the piece
        peak = 1 + height * max(0.0, 1 - abs(nearest - worst) / 50)
        return peak * math.sqrt(answers / (a + b + 1))

    monkeypatch.setattr(gdp, "corner", corner)
    found = sum_slope(answers, 0.1 + 1e-6 * worst, 1e-9 * height)  # not what is known already
    assert 1 + height <= found <= (1 + height) * (1 + 1e-4)
    assert len(calls) < answers


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


# Whole curves of tiny federations.


def excess(p: list[float], moved: float, count: int, mu: float, tail: float) -> float:
    """How far the exact curve of a sum passes the claimed one, over both directions.

    ``p`` are the answers of the sum, of which the first ``count`` move together to ``moved``. The
    hockey-stick curves come closest where the Gaussian's has the size of a threshold {X >= k}.
    """
    fixed = [mp.mpf(x) for x in p[count:]]
    laws = [
        np.array(reference.law([mp.mpf(x)] * count + fixed), dtype=float) for x in (p[0], moved)
    ]
    worst = -math.inf
    for one, other in (laws, laws[::-1]):
        sizes = np.concatenate([np.cumsum(other)[:-1], np.cumsum(other[::-1])[:-1]])
        for e in -mu * norm.ppf(sizes) - mu**2 / 2:
            if e >= 0:
                exact = np.maximum(one - np.exp(e) * other, 0).sum()
                claim = norm.cdf(mu / 2 - e / mu) - np.exp(e) * norm.cdf(-mu / 2 - e / mu)
                worst = max(worst, exact - claim - (1 + np.exp(e)) * tail)
    return worst


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_curve_of_a_tiny_federation_passes_the_claim(data: st.DataObject) -> None:
    """Theorems 1 to 3: a site's m answers move, the other sites answer with any probabilities."""
    m = data.draw(st.integers(1, 4))
    others = data.draw(st.integers(0, 5))
    theta = data.draw(st.sampled_from([0.05, 0.25, 0.4]))
    tau = data.draw(st.sampled_from([1e-3, 1e-9]))
    inside = st.floats(0.5 - theta, 0.5 + theta)
    p, moved = data.draw(inside), data.draw(inside)
    shift = abs(p - moved)
    if shift < 1e-4:
        return
    answers = [p] * m + [data.draw(inside) for _ in range(others)]
    site = site_slope(m, theta)
    total = m * sum_slope(len(answers), theta, tau)
    assert excess(answers[:m], moved, m, site * shift, 0.0) < 1e-13
    assert excess(answers, moved, m, total * shift, 2 * tau) < 1e-13
    assert excess(answers, moved, m, site * shift, 0.0) < 1e-13  # both sides of Theorem 2's min


@pytest.mark.parametrize(("m", "theta"), [(1, 0.25), (4, 0.25), (6, 0.4)])
def test_twins_with_too_small_a_slope_are_caught(m: int, theta: float) -> None:
    """1 % less than s, and the slope 2 sqrt(m) of an ideal Gaussian, are passed by real curves."""
    p, moved = 0.5 + theta, 0.5 + theta - 1e-3
    s = site_slope(m, theta)
    assert excess([p] * m, moved, m, s * 1e-3, 0.0) < 1e-13
    for small in (0.99 * s, 2 * math.sqrt(m)):
        assert excess([p] * m, moved, m, small * 1e-3, 0.0) > 1e-10


# Tails.


@pytest.mark.parametrize(("n", "p"), [(300, 0.44), (20_000, 0.56), (10**6, 0.53)])
def test_binomials_far_out_against_many_digits(n: int, p: float) -> None:
    law = binomial(n, p, 1e-34)
    for z in (-11, -4, 0, 4, 11):
        k = round(n * p + z * math.sqrt(n * p * (1 - p)))
        truth = mp.binomial(n, k) * mp.mpf(p) ** k * (1 - mp.mpf(p)) ** (n - k)
        assert abs(law.pmf[k - law.first] / truth - 1) < 4e-9
    outside = 1 - mp.fsum(mp.mpf(x) for x in law.pmf)
    assert abs(outside) < 4e-9  # as far as the float error lets one see
    assert law.cut == 2e-34


def test_a_sum_of_ten_thousand_answers_against_many_digits() -> None:
    """The corner where every other answer is at lo: Theorem 2 may not be below it."""
    answers, theta, tau = 10_240, 0.125, mp.mpf("1e-22")
    lo = mp.mpf(0.5) - mp.mpf(theta)
    first, last = 3_100, 4_600
    pmf = [mp.binomial(answers - 1, first) * lo**first * (1 - lo) ** (answers - 1 - first)]
    for k in range(first, last):
        pmf.append(pmf[-1] * (answers - 1 - k) / (k + 1) * lo / (1 - lo))
    below = mp.fsum(pmf[:267]) + lo * pmf[267]  # the worst threshold, k - 1 = 3367
    truth = pmf[267] / reference.tangent(below, tau)
    assert truth <= sum_slope(answers, theta, 1e-22) <= truth * (1 + 2.1e-3)
    assert float(truth) * math.sqrt(answers) / 2 == pytest.approx(1.076422, abs=1e-6)


# Published numbers.

SITE = {  # theta: s / (2 sqrt m) at m = 1, 4, 64, 1024
    1 / 32: (1.2572, 1.0648, 1.0072, 1.0035),
    1 / 16: (1.2689, 1.0768, 1.0172, 1.0135),
    1 / 8: (1.3186, 1.1229, 1.0594, 1.0556),
    1 / 4: (1.5734, 1.3472, 1.2771, 1.2724),
}
SUM = {
    (1 / 32, 2): (1.185, 1.072, 1.044, 1.037, 1.034, 1.023),
    (1 / 32, 100): (1.037, 1.035, 1.025, 1.016, 1.010, 1.009),
    (1 / 16, 2): (1.262, 1.176, 1.132, 1.121, 1.090, 1.053),
    (1 / 16, 10): (1.163, 1.127, 1.120, 1.083, 1.049, 1.030),
    (1 / 8, 5): (1.486, 1.446, 1.409, 1.293, 1.162, 1.097),
    (1 / 8, 10): (1.472, 1.422, 1.382, 1.217, 1.124, 1.078),
    (1 / 4, 2): (1.970, 1.905, 1.827, 1.806, 1.801, 1.445),
    (1 / 4, 10): (2.588, 2.687, 2.668, 1.763, 1.410, 1.273),
    (1 / 4, 100): (2.677, 2.001, 1.492, 1.307, 1.228, 1.195),
}


@pytest.mark.parametrize("theta", SITE)
def test_published_site_losses(theta: float) -> None:
    losses = [site_slope(m, theta) / (2 * math.sqrt(m)) for m in (1, 4, 64, 1024)]
    assert losses == pytest.approx(SITE[theta], abs=5.5e-5)
    limit = math.sqrt(theta / math.log((1 + 2 * theta) / (1 - 2 * theta))) / (0.5 - 2 * theta**2)
    assert site_slope(10**5, theta) / (2 * math.sqrt(10**5)) == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize(("theta", "n"), SUM)
def test_published_sum_losses(theta: float, n: int) -> None:
    """Both are bounds from above within 0.2 %, the published one at M = 102,400 within 0.5 %."""
    for m, loss in zip((1, 4, 16, 64, 256, 1024), SUM[theta, n], strict=True):
        slope = min(sum_slope(n * m, theta, 1e-22), site_slope(m, theta) / m)
        found = math.sqrt(n * m) * slope / 2
        assert loss * (1 - (2.5e-3 if n * m < 10**5 else 5e-3)) < found < loss * (1 + 2.5e-3)


# What the plan asks for.


def _no_rounding(_: Any) -> Any:
    def sensitivity(
        *, clip_norm: float, range_: float, truth_strength: float, dimension: int
    ) -> Any:
        return truth_strength * min(clip_norm / range_, 2 * dimension**0.5)

    return sensitivity


@twin(
    "the rounding of probabilities is not accounted for",
    "dppm_model.privacy.gdp:probability_sensitivity",
    _no_rounding,
)
def test_sensitivity_is_a_formula_of_the_plan() -> None:
    wide = {"clip_norm": 1.0, "range_": 4.0, "truth_strength": 0.1, "dimension": 1 << 20}
    delta = probability_sensitivity(**wide)
    assert 0.025 + 2.0**10 * 2.0**-32 <= delta < 0.0250003
    tight = probability_sensitivity(clip_norm=9.0, range_=1.0, truth_strength=0.1, dimension=1)
    assert tight == pytest.approx(0.2, rel=1e-6)


def test_rounded_probabilities_stay_within_the_accounted_range() -> None:
    slack = 2.0**-33
    assert mu_site(responses=5, truth_strength=0.3, sensitivity=1.0) == site_slope(5, 0.3 + slack)
    assert site_slope(5, 0.3 + slack) > site_slope(5, 0.3)


# 2^24 steps of so little a length: their size rounds up, to twice and more what it should be
_LITTLE = math.ceil(0.5001 * 2**24) * 2.0**-1074


@twin(
    "a plan may have lengths of subnormal numbers",
    "dppm_model.bounds:require_length",
    lambda _: lambda name, value: None,
    only="[4.0-little]",
)
@pytest.mark.parametrize(
    "length", [pytest.param(_LITTLE, id="little"), 1e-310, 1e-31, 1e-30, 1e-9, 1.0, 1e9, 1e30, 1e31]
)
@pytest.mark.parametrize("over", [1.0, 4.0, 1e3])
def test_answers_move_no_more_than_accounted_at_any_length(length: float, over: float) -> None:
    """From a record's integers to probabilities, the code stays below the bound, or refuses."""
    try:
        response = BinomialMechanism(range_=length * over, truth_strength=0.2, responses=2)
        phase = replace(TOY, clip_norm=length, mechanism=response)
    except PlanError as error:
        assert "1e-30 to 1e+30" in str(error) and not 1e-27 <= length <= 1e27
        return
    z = phase.rotation.rotate(np.array([GRID_STEPS, 0]), b"seed")
    moved = (response.numerators(z, phase.step) - 2.0**31) / 2**32
    accounted = probability_sensitivity(
        clip_norm=length, range_=response.range_, truth_strength=0.2, dimension=2
    )
    assert 0.99 * accounted <= np.linalg.norm(moved) <= accounted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 2.0**-33),
        ("tail", 1e-280),
        ("rounds", 1 << 21),
        ("dimension", 1 << 41),
        ("sites", 1 << 21),
        ("records", 1 << 41),
    ],
)
def test_a_plan_counts_nothing_that_cannot_be_computed(field: str, value: float) -> None:
    with pytest.raises(PlanError, match=rf"phases\[\].{field} is"):
        replace(TOY, **{field: value})
    for response in ({"responses": 1 << 21}, {"truth_strength": 2.0**-33}):
        with pytest.raises(PlanError, match=next(iter(response))):
            with_mechanism(TOY, **response)


@pytest.mark.parametrize(("m", "n", "better"), [(1, 6, "sum"), (3, 3, "sum"), (6, 2, "site")])
def test_the_sum_has_the_answers_of_all_honest_sites(m: int, n: int, better: str) -> None:
    """Theorem 2, both sides of its minimum, against the reference."""
    theta, tau = (0.4, 1e-12) if better == "site" else (0.1, 1e-3)
    sides = {
        "site": reference.site_slope(m, theta),
        "sum": m * reference.sum_slope(n * m, theta, tau),
    }
    assert min(sides, key=lambda side: sides[side]) == better
    mu = mu_secure_sum(responses=m, truth_strength=theta, sensitivity=0.01, honest_sites=n, tau=tau)
    assert 0.01 * sides[better] <= mu <= 0.01 * sides[better] * (1 + 2.1e-3)
    assert mu <= mu_site(responses=m, truth_strength=theta, sensitivity=0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("truth_strength", bad) for bad in (0.0, 0.5, 0.5 - 2.0**-40, -0.1, math.nan, True)),
        *(("responses", bad) for bad in (0, -3, 2.0, True)),
        *(("honest_sites", bad) for bad in (0, 1.5, True)),
        *(("sensitivity", bad) for bad in (0.0, math.inf, math.nan, True)),
        *(("tau", bad) for bad in (0.0, 0.5, 1e-300, math.nan)),
        *(
            (f, bad)
            for f in ("clip_norm", "range_", "dimension")
            for bad in (0, -1, math.nan, True)
        ),
    ],
)
def test_arguments_outside_their_range_are_refused(field: str, value: float) -> None:
    of_mu = {"responses": 4, "sensitivity": 0.1, "honest_sites": 2, "tau": 1e-20}
    of_lengths = {"clip_norm": 1.0, "range_": 1.0, "dimension": 4}
    bound, good = (
        (probability_sensitivity, of_lengths) if field in of_lengths else (mu_secure_sum, of_mu)
    )
    assert bound(**good, truth_strength=0.1) > 0
    with pytest.raises(PlanError, match="tail" if field == "tau" else field.rstrip("_")):
        bound(**(good | {"truth_strength": 0.1} | {field: value}))
