"""Killed at every step, cut off at every message, spent to the limit: rounds go on, exactly."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from flwr.app import Message

from client.policy import Policy
from deploy import simulate as simulation
from dppm_model.errors import BudgetExhausted, TooFewSites
from dppm_model.fault_points import FaultPoint, watched
from dppm_model.planner import epsilons
from dppm_model.privacy.ledger import Ledger
from dppm_model.run import Run
from tests.conftest import TINY
from tests.support.few_rounds import FOUR_ROUNDS
from tests.support.flaky_grid import (
    Killed,
    LateGrid,
    SiteDied,
    assert_same_model,
    dies,
    play,
    twin_of,
)

SHORT = [*TINY, *FOUR_ROUNDS, "server.max_retries=1", "server.retry_seconds=0.001"]


def prepare(folder: Path, *extra: str) -> Run:
    return simulation.prepare(folder, [*SHORT, *extra])[0]


def spent(run: Run) -> dict[str, int]:
    """Debits of the server and of each site, read from disk."""
    paths = [run.ledger, *sorted(run.sites.glob("*/ledger.jsonl"))]
    return {str(p.relative_to(run.folder)): len(Ledger(p).debits) for p in paths}


def assert_same(run: Run, whole: Run) -> None:
    assert_same_model(run, whole)
    assert spent(run) == spent(whole)
    assert [line["sites"] for line in run.rounds()] == [line["sites"] for line in whole.rounds()]


@pytest.fixture(scope="module")
def whole(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPPM_DATA", str(tiny_store))
        folder = tmp_path_factory.mktemp("faults")
        run = prepare(folder / "prepared")
        reference = twin_of(run, folder / "whole")
        play(reference)
    return run, reference


def check_release(run: Run) -> Callable[[int, Message], None]:
    """No report is on the wire whose debit is not on disk, and spent never falls."""
    before = Counter[str]()

    def seen(site: int, reply: Message) -> None:
        now = spent(run)
        assert all(now[name] >= count for name, count in before.items())
        before.update({name: count - before[name] for name, count in now.items()})
        if not reply.has_error() and "report" in reply.content.config_records:
            rounds = len(run.rounds()) + 1
            assert now.get(f"sites/{site:04d}/ledger.jsonl") == rounds

    return seen


# Of rounds that a site spoils: tests/integration/test_liars.py
SPOILT = {FaultPoint.SERVER_BLAMED, FaultPoint.SERVER_JUDGED, FaultPoint.SITE_REMOVED}
# Of rounds whose noise is the server's: `tests/privacy/test_mechanisms.py`.
TRUSTED = {FaultPoint.SERVER_RELEASED}
STEPS = [s for s in FaultPoint if s not in SPOILT | TRUSTED]


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.name)
def test_killed_at_any_step_and_started_again(
    whole: tuple[Run, Run], tmp_path: Path, step: FaultPoint, nth: int
) -> None:
    """The nth time: first site or round, in its middle, and later on."""
    prepared, reference = whole
    run = twin_of(prepared, tmp_path / "run")
    if step.name.startswith("SERVER") and nth > prepared.plan().sites:
        nth = 4  # the last round
    with watched(dies(step, nth)), pytest.raises(Killed):
        play(run, seen=check_release(run))
    assert not run.model.exists() or step is FaultPoint.SERVER_SAVED
    play(run, seen=check_release(run))
    assert_same(run, reference)


SITE_STEPS = [s for s in STEPS if s.name.startswith("SITE")]


@pytest.mark.parametrize("step", SITE_STEPS, ids=lambda s: s.name)
def test_a_site_killed_at_any_step_is_asked_again(
    whole: tuple[Run, Run], tmp_path: Path, step: FaultPoint
) -> None:
    prepared, reference = whole
    run = twin_of(prepared, tmp_path / "run")
    with watched(dies(step, 2, SiteDied)):
        play(run, seen=check_release(run))
    assert_same(run, reference)


@pytest.mark.parametrize("kind", ["query.join", "train", "query.open"])
@pytest.mark.parametrize("replied", [False, True], ids=["message", "reply"])
def test_one_lost_message(whole: tuple[Run, Run], tmp_path: Path, kind: str, replied: bool) -> None:
    prepared, reference = whole
    run = twin_of(prepared, tmp_path / "run")
    once = [True]

    def lost(site: int, now: str, after: bool) -> bool:
        return (site, now, after) == (1, kind, replied) and bool(once and once.pop())

    play(run, lost=lost)
    assert_same(run, reference)


def test_after_all_retries_the_run_stops_with_its_own_code(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run")
    lost = {"train": True}
    asked = Counter[int]()

    def flaky(site: int, kind: str, after: bool) -> bool:
        asked[site] += kind == "train" and not after
        return kind == "train" and site == 1 and lost["train"]

    with pytest.raises(TooFewSites, match=r"2 of 3 reported, 3 must.*Flower error 5") as error:
        play(run, lost=flaky)
    assert error.value.exit_code == 20 and run.read_json(run.status)["state"] == "failed"
    assert asked == {0: 1, 1: 2, 2: 1}  # one retry, of the silent site only
    assert spent(run)["sites/0000/ledger.jsonl"] == 1  # debits stay
    lost["train"] = False
    play(run, lost=flaky)
    assert spent(run) == dict.fromkeys(spent(run), run.plan().rounds)


def test_sites_drop_out_come_back_and_join_late(tmp_path: Path, tiny: Path) -> None:
    """Site 3 joins late; site 0 does not report in round 1; site 1 does not help to open it."""
    run = prepare(
        tmp_path / "run", "sites=4", "privacy.min_survivors=3", "server.wait_seconds=0.01"
    )
    reported: dict[int, set[int]] = {}

    def lost(site: int, kind: str, after: bool) -> bool:
        now = len(run.rounds())
        return now == 1 and (site, kind) in {(0, "train"), (1, "query.open")}

    def seen(site: int, reply: Message) -> None:
        if "report" in reply.content.config_records:
            reported.setdefault(len(run.rounds()), set()).add(site)

    play(run, LateGrid, lost=lost, seen=seen)
    # Site 1 had no keys for round 2, for it did not answer when they were gathered.
    assert list(reported.values()) == [{0, 1, 2}, {1, 2, 3}, {0, 2, 3}, {0, 1, 2, 3}]
    assert [line["sites"] for line in run.rounds()] == [3, 3, 3, 4]


def test_a_site_without_budget_leaves_and_the_rest_go_on(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run", "privacy.min_survivors=2")
    plan = run.plan()
    toml = run.sites / "0001" / "site.toml"
    policy = Policy.read(toml)
    two = epsilons(plan, 2)["secure_sum"]
    replace(policy, max_epsilon_secure_sum=two).write(toml)
    play(run)
    assert [line["sites"] for line in run.rounds()] == [3, 3, 2, 2]
    assert spent(run)["sites/0001/ledger.jsonl"] == 2  # the last round that fits was answered


def test_the_server_stops_before_its_own_limit(tmp_path: Path, tiny: Path) -> None:
    """A plan that costs more than privacy.epsilon: the rounds that fit run, equality included."""
    run = prepare(tmp_path / "run")
    two = epsilons(run.plan(), 2)["secure_sum"]
    tree = yaml.safe_load(run.config.read_text())
    tree["privacy"]["epsilon"] = two
    run.config.write_text(yaml.safe_dump(tree))
    with pytest.raises(BudgetExhausted, match="round 3"):
        play(run)
    assert len(run.rounds()) == 2
    assert set(spent(run).values()) == {2}
