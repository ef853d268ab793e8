"""The audit: its bounds hold for a mechanism that is known, and it finds what is not randomized."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from dppm_model.audit.bounds import guessed_epsilon, p_value, told_apart
from dppm_model.audit.games import canary_vectors, two_worlds
from dppm_model.errors import ClaimRefuted
from dppm_model.planner import epsilons
from sampler.evaluation.membership import _roc
from tests.conftest import TINY
from tests.support.plan_factory import planned, with_mechanism
from tests.support.seeded_rng import SeededRNG

DELTA = 1e-5


def coin_flips(n: int, epsilon: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of n records by randomized response: exactly epsilon-DP each."""
    rng = np.random.default_rng(seed)
    included = rng.random(n) < 0.5
    told = rng.random(n) < 1 / (1 + math.exp(-epsilon))
    return included, np.where(told == included, 1.0, 0.0) + 1e-3 * rng.random(n)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_the_one_run_bound_holds_for_randomized_response_and_is_not_empty(epsilon: float) -> None:
    """Wrong in at most one of twenty (here: of 60, at most 9, a chance below 1e-3), and near."""
    bounds = [guessed_epsilon(*coin_flips(4000, epsilon, s), 0.0).epsilon for s in range(60)]
    assert sum(b > epsilon for b in bounds) <= 9
    assert np.median(bounds) > 0.7 * epsilon


def test_p_values_are_binomial_tails_without_delta_and_grow_with_it() -> None:
    assert p_value(100, 10, 10, 0.0, 0.0) == pytest.approx(2.0**-10)
    assert p_value(100, 10, 10, 1.0, 0.0) < p_value(100, 10, 10, 1.0, 1e-4)
    assert p_value(100, 10, 0, 1.0, 0.0) == 1


def test_two_gaussians_are_told_apart_by_no_more_than_they_differ() -> None:
    rng = np.random.default_rng(0)
    for mu in (0.5, 1.0, 3.0):
        found = told_apart(rng.normal(size=100_000), rng.normal(mu, size=100_000), DELTA).epsilon
        exact = mu**2 / 2 + mu * 4.27  # at delta = 1e-5, from above
        assert 0.2 * mu < found < exact


@pytest.mark.parametrize("mechanism", ["binomial", "directions"])
@pytest.mark.parametrize("target", [1.0, 8.0])
def test_only_without_randomization_are_claims_refuted(mechanism: str, target: float) -> None:
    """The stated number: without randomization at least 5 (whole run) and 3.8 (one round).

    With directions 2, since canaries that name the same direction cannot be told apart.
    """
    plan = planned(target, mechanism)
    claims = epsilons(plan)
    canaries = 3000 if mechanism == "binomial" else 1000
    for view in ("secure_sum", "site"):
        coins = SeededRNG(f"{view}{target}")
        found = canary_vectors(plan, view, canaries, DELTA, coins)  # type: ignore[arg-type]
        assert found.epsilon < claims[view]
        bare = canary_vectors(plan, view, canaries, DELTA, coins, randomized=False)  # type: ignore[arg-type]
        assert bare.epsilon > (5 if mechanism == "binomial" else 2)
        one = two_worlds(plan.phases[0], view, 1000, DELTA, coins)  # type: ignore[arg-type]
        assert one.epsilon < claims[view]
        bare = two_worlds(plan.phases[0], view, 1000, DELTA, coins, randomized=False)  # type: ignore[arg-type]
        assert bare.epsilon > 3.8


def test_the_audit_catches_a_twin_that_tells_too_much_truth() -> None:
    """Twenty times the planned strength: the claim of one round is refuted."""
    phase = planned(1.0).phases[0]
    theta = min(0.49, 20 * phase.mechanism.truth_strength)
    claim = epsilons(planned(1.0))["secure_sum"]
    twin = with_mechanism(phase, truth_strength=theta)
    assert two_worlds(twin, "secure_sum", 5000, DELTA, SeededRNG(1)).epsilon > claim


def test_areas_of_scores() -> None:
    rng = np.random.default_rng(0)
    same = _roc(rng.normal(size=2000), rng.normal(size=2000))
    assert abs(same["area"] - 0.5) < 5 * same["standard_error"]
    apart = _roc(rng.normal(2, size=2000), rng.normal(size=2000))
    assert apart["area"] == pytest.approx(0.921, abs=0.02)
    assert apart["true_positives_at_1_percent"] == pytest.approx(0.37, abs=0.08)


def test_the_command(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert main(["simulate", str(run), *TINY]) == 0
    limits = ["--canaries=200", "--images=50", "--trials=1000", "--members=100"]
    assert main(["sample", str(run), "pool.workers=0", "sampler.per_class=20"]) == 0
    capsys.readouterr()
    assert main(["audit", str(run), "--json", *limits]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {g["view"] for g in found["games"]} == {"secure_sum", "site"}
    assert all(g["epsilon"] <= g["claim"] for g in found["games"])
    assert set(found["membership"]["attacks"]) and (run / "audit.json").is_file()
    assert main(["audit", str(run), "--json", *limits, "--without-randomization"]) == 0
    bare = json.loads(capsys.readouterr().out)["games"]
    assert sum(b["epsilon"] for b in bare) > 1.5 * sum(g["epsilon"] for g in found["games"])
    assert main(["audit", str(tmp_path)]) == 16
    assert main(["audit", str(run), "--trials", "3"]) == 2

    import deploy.audit as module

    monkeypatch.setattr(module, "epsilon", lambda *_: 1e-3)  # a claim that is too good
    assert main(["audit", str(run), "--json", *limits]) == ClaimRefuted.exit_code
