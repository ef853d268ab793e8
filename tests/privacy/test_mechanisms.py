"""The duties of a mechanism, tried on all that are registered; and the limits of the Gaussian."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from scipy.stats import norm

from client.policy import Policy
from deploy.cli import main
from deploy.pages.live_state import LiveState
from deploy.show import epsilon_text
from dppm_model.errors import ConfigError, PlanError, PolicyError
from dppm_model.mechanism.base import Mechanism
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.directions import DirectionsMechanism
from dppm_model.mechanism.gaussian import GaussianMechanism, rounded_normal
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.mechanism.registry import MECHANISMS
from dppm_model.phase import PhasePlan
from dppm_model.planner import summary
from dppm_model.planning.registry import PLANNERS
from dppm_model.privacy.accountant import RoundCost, delta, epsilon
from dppm_model.run import Run
from sampler.evaluation import classifier
from sampler.images import manifest_of
from sampler.service import sampling_pb2 as pb
from sampler.service import service as image_service
from server.aggregation import Aggregate
from server.rounds import released
from tests.conftest import SMALL, TINY, short_recipe
from tests.support.mutations import nothing, twin
from tests.support.plan_factory import TOY, asked_privacy, planned, view_of
from tests.support.policy_factory import policy
from tests.support.seeded_rng import ScriptedRNG, SeededRNG, chi_square

TOYS: dict[str, Mechanism] = {
    "binomial": BinomialMechanism(range_=4.0, truth_strength=0.2, responses=40),
    "directions": DirectionsMechanism(directions=64, truth_strength=0.5, slots=20),
    "gaussian": GaussianMechanism(noise_multiplier=2.0),
}


def phase_of(name: str, **changes: object) -> PhasePlan:
    return replace(TOY, mechanism=TOYS[name], dimension=32, sampling_rate=1.0, **changes)


def test_every_mechanism_is_tried_here() -> None:
    assert TOYS.keys() == MECHANISMS.keys() == PLANNERS.keys()


@pytest.mark.parametrize("name", MECHANISMS)
def test_sums_are_estimated_without_bias_and_with_the_variance_that_is_said(name: str) -> None:
    phase, coins = phase_of(name), SeededRNG(name)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 32))
    rows = np.trunc(rows / np.linalg.norm(rows, axis=1)[:, None] * GRID_STEPS * 0.999)
    sites = [KnownVectors(part.astype(np.int64)) for part in (rows[:6], rows[6:])]
    nobody, rounds, found, noise = KnownVectors(np.zeros((0, 32), np.int64)), 1500, [], []
    for i in range(rounds):
        seed = str(i).encode()
        for kept, who in ((found, sites), (noise, [nobody, nobody])):
            reports = [phase.mechanism.encode(site, phase, seed, coins) for site in who]
            for one in reports:
                assert one.shape == (phase.report_length,)
                assert one.min() >= 0 and one.max() <= phase.max_count
            total = phase.mechanism.release(np.sum(reports, axis=0), phase, coins)
            kept.append(phase.mechanism.decode(total, 2, phase, seed))
    truth = phase.grid.to_float(rows.sum(axis=0))
    error = np.std(found, axis=0) / math.sqrt(rounds)
    bias = 0.0 if phase.mechanism.adds_up else 0.05 * np.abs(truth).max()
    assert (np.abs(np.mean(found, axis=0) - truth) < 5.5 * error + bias).all()
    assert np.var(noise) == pytest.approx(phase.mechanism.variance(2, phase), rel=0.05)


@pytest.mark.parametrize("name", MECHANISMS)
def test_rounds_cost_what_they_cost_together_and_survive_json(name: str) -> None:
    phase, view = phase_of(name, rounds=7), view_of(name)
    once = [phase.cost(view, 1)] * 7
    assert epsilon(once, 1e-5) == pytest.approx(epsilon([phase.cost(view, 7)], 1e-5), rel=1e-6)
    assert PhasePlan.from_dict(json.loads(json.dumps(phase.to_dict()))) == phase
    assert phase.to_dict()["mechanism"] == name
    for one in ("release", "secure_sum", "site"):
        cost = phase.cost(one, 1)  # type: ignore[arg-type]
        assert RoundCost.from_dict(json.loads(json.dumps(cost.to_dict(), allow_nan=False))) == cost


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("target", [1.0, 6.0])
def test_planners_meet_the_target_from_below(name: str, target: float) -> None:
    plan = planned(target, name)
    assert 0.97 * target < epsilon(plan.costs(view_of(name)), plan.delta) <= target


# The Gaussian at the server.


@pytest.mark.parametrize(("z", "q", "rounds"), [(1.0, 0.1, 100), (4.0, 1.0, 3), (0.8, 0.01, 500)])
def test_the_release_costs_what_dp_sgd_costs(z: float, q: float, rounds: int) -> None:
    phase = replace(TOY, mechanism=GaussianMechanism(z), sampling_rate=q, rounds=rounds)
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z))
    theirs = PLDAccountant().compose(event, rounds).get_epsilon(1e-5)
    assert epsilon([phase.cost("release", rounds)], 1e-5) == pytest.approx(theirs, rel=2e-3)


def test_nothing_is_claimed_against_who_sees_sums() -> None:
    plan = planned(4.0, "gaussian")
    for view in ("secure_sum", "site"):
        costs = plan.costs(view)  # type: ignore[arg-type]
        assert epsilon(costs, 1e-5) == math.inf and delta(costs, 50.0) == 1
        assert all(phase[f"mu_{view}"] is None for phase in summary(plan)["phases"])
        with pytest.raises(ConfigError, match="protects nothing"):
            replace(asked_privacy(1.0, "gaussian"), view=view)
    assert plan.trusts_server and plan.views == ("release",)
    mixed = (plan.phases[0], replace(plan.phases[1], mechanism=TOYS["binomial"]))
    with pytest.raises(PlanError, match="Some phases trust the server"):
        replace(plan, phases=mixed)


@twin("a site gives exact sums to an untrusted server", "client.policy:Policy.check_plan", nothing)
def test_a_site_that_does_not_trust_the_server_refuses() -> None:
    plan, own = planned(4.0, "gaussian"), replace(policy("x", 9.0, 3), mechanisms=tuple(MECHANISMS))
    with pytest.raises(PolicyError, match="exact sums"):
        own.check_plan(plan)
    replace(own, max_epsilon_trusted_server=1.0).check_plan(plan)
    with pytest.raises(ConfigError, match="max_epsilon_trusted_server"):
        replace(own, max_epsilon_trusted_server=-1.0)
    assert isinstance(own, Policy)


@twin(
    "a trusted server releases exact sums without noise",
    "dppm_model.mechanism.gaussian:rounded_normal",
    lambda _: lambda deviation, count, coins: np.zeros(count, dtype=np.int64),
)
@twin(
    "a restarted server draws new noise for the same sum",
    "server.state:StateFile.read",
    lambda _: classmethod(lambda cls, path, plan: None),
)
def test_a_server_that_died_releases_the_same_noise(tmp_path: Path) -> None:
    """And the same sum, should another one be opened meanwhile; the next round has its own."""
    run, plan = Run(tmp_path), planned(4.0, "gaussian")
    exact = np.full(plan.phases[0].dimension, 10**9)
    first = released(run, plan, 0, 0, Aggregate(exact, 3, {}, [], 0, 0))
    assert (first[0] != exact).mean() > 0.99
    again = released(run, plan, 0, 0, Aggregate(exact - 5, 2, {}, [], 0, 0))
    assert (again[0] == first[0]).all() and again[1] == 3
    following = released(run, plan, 0, 1, Aggregate(exact, 3, {}, [], 0, 0))
    assert (following[0] != first[0]).mean() > 0.99


def test_the_noise_is_a_rounded_normal() -> None:
    """By chi-square at a small deviation, false alarm 1e-6; by moments at that of a plan."""
    found = rounded_normal(1.7, 200_000, SeededRNG("noise"))
    k = np.arange(-12, 13)
    expected = norm.cdf((k + 0.5) / 1.7) - norm.cdf((k - 0.5) / 1.7)
    counts = np.bincount(np.clip(found, -12, 12) + 12, minlength=25)
    assert chi_square(counts, 200_000 * expected) > 1e-6
    large = rounded_normal(2.0 * GRID_STEPS, 100_000, SeededRNG(1)) / (2.0 * GRID_STEPS)
    assert abs(large.mean()) < 5 / 100_000**0.5 and abs(large.std() - 1) < 5 / 200_000**0.5


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("above", [False, True])
def test_a_uniform_at_an_edge_is_decided_by_more_bits(k: int, above: bool) -> None:
    """The first 64 bits tie with P[X > k + 1/2]; the next bits are just below, or at, its own."""
    with mpmath.workprec(400):
        edge = int(mpmath.floor(mpmath.ldexp(mpmath.ncdf(-(mpmath.mpf(k) + 0.5) / 2), 128)))
    first, rest = divmod(edge + (1 if above else -1), 1 << 64)
    script = (first << 1).to_bytes(8, "little") + rest.to_bytes(8, "little")
    assert rounded_normal(2.0, 1, ScriptedRNG(script))[0] == (k if above else k + 1)


@twin(
    "the service reports an epsilon of 0 for no protection",
    "sampler.service.service:privacy_message",
    lambda _: (
        lambda found: pb.Privacy(**{f.name: found[f.name] for f in pb.Privacy.DESCRIPTOR.fields})
    ),
)
def test_what_is_not_protected_is_nowhere_shown_as_protected(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever shows a run says its release's epsilon, and infinity for the rest; and never 0."""
    monkeypatch.setitem(classifier.RECIPES, "quick", short_recipe())
    run, shown = Run(tmp_path / "run"), {}
    trusting = ["mechanism=gaussian", "privacy.view=release"]
    for name, *words in (
        ("simulate", *TINY, *trusting),
        ("sample", *SMALL),
        ("evaluate",),
        ("audit", "--canaries", "50", "--trials", "1000"),
        ("report",),
        ("compare",),
    ):
        assert main([name, str(run.folder), *words]) == 0
        shown[name] = "".join(capsys.readouterr())
    shown["report"] = (run.folder / "report.html").read_text()
    shown["evaluation.md"] = (run.folder / "evaluation.md").read_text()
    state = LiveState(run)
    shown["live"] = state.content()["/"][1].decode()
    release = epsilon_text(run.read_json(run.privacy)["epsilon_release"])
    del shown["sample"], shown["audit"]
    for text in shown.values():
        assert release in text and "∞ (no protection)" in text.replace("\n", " ")
        assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"<svg.*?</svg>|url\(.*?\)", "", text))
    assert "The server is trusted" in shown["report"]
    metrics = state.content()["/metrics"][1].decode()
    infinite = re.findall(r'epsilon_spent{run="run",view="(\w+)"} \+Inf', metrics)
    assert infinite == ["secure_sum", "site"]
    manifest = manifest_of(run.samples)["privacy"]
    assert manifest["epsilon_secure_sum"] is None
    told = image_service.privacy_message(manifest)
    assert told.epsilon_secure_sum == told.epsilon_site == math.inf
    assert epsilon_text(told.epsilon_release) == release


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_whole_run_in_process(name: str, tmp_path: Path, tiny: Path) -> None:
    view = f"privacy.view={view_of(name)}"
    assert main(["simulate", str(tmp_path / "run"), *TINY, f"mechanism={name}", view]) == 0
    run = Run(tmp_path / "run")
    privacy, last = run.read_json(run.privacy), run.rounds()[-1]
    assert len(run.rounds()) == run.plan().rounds and run.model.exists()
    assert privacy["epsilon_release"] <= 8
    for key in ("epsilon_secure_sum", "epsilon_site"):
        assert last[key] == privacy[key]
        assert (privacy[key] is None) == MECHANISMS[name].trusts_server
    assert main(["plan", *TINY, f"mechanism={name}", view]) == 0
    assert main(["ledger", "show", str(run.folder)]) == 0
