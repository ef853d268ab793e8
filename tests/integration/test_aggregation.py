"""An aggregation is one module: a second one gives the same model, and never runs unasked."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from client.approvals import Approval, approval_file, read_approvals
from deploy import simulate as simulation
from deploy.kit.announcement import Announcement, Facts
from deploy.kit.bundle import build_bundle
from dppm_model.errors import ConfigError, EnrolmentError, PlanError
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.run import Run
from tests.conftest import TINY
from tests.support.few_rounds import FOUR_ROUNDS
from tests.support.flaky_grid import play, twin_of
from tests.support.plain_sum import NAME, registered


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Run:
    return simulation.prepare(tmp_path / "run", [*TINY, *FOUR_ROUNDS, "privacy.view=site"])[0]


def plain(plan: Plan) -> Plan:
    """The same plan under plain summation, which is accounted as what it is."""
    phases = tuple(replace(p, honest_sites=1) for p in plan.phases)
    return replace(plan, aggregation=NAME, phases=phases)


def test_another_aggregation_gives_the_same_model_at_its_cost(run: Run, tmp_path: Path) -> None:
    other = twin_of(run, tmp_path / "other")
    play(run)
    with registered():
        plan = plain(run.plan())
        _, secure_sum, site = epsilons(plan).values()
        at_sum = epsilons(run.plan())["secure_sum"]
        assert secure_sum >= site > 1.2 * at_sum  # anyone who sees sums sees reports
        (other.folder / "plan.json").unlink()
        other.write_plan(plan)
        peers = other.peers()
        for folder in other.sites.iterdir():
            shutil.rmtree(folder / "approvals")
            Approval(plan, peers, bundle="", note="").write(folder)
        play(other)
    assert other.model.read_bytes() == run.model.read_bytes()


def test_nobody_can_be_asked_to_approve_it(run: Run, tmp_path: Path) -> None:
    with registered():
        plan = plain(run.plan())
        peers, facts = run.peers(), Facts(plan.model.shape, plan.model.classes)
        Announcement("demo", plan, facts, peers, build_bundle()).write(tmp_path / "a.zip")
        Approval(plan, peers, bundle="", note="").write(tmp_path)
        assert approval_file(tmp_path, plan.digest).is_file()
        assert Announcement.read(tmp_path / "a.zip").plan == plan  # the twin
    with pytest.raises(PlanError, match="aggregation is 'plain'"):
        Plan.from_json(plan.to_json())
    with pytest.raises(EnrolmentError, match="aggregation is 'plain'"):
        Announcement.read(tmp_path / "a.zip")
    with pytest.raises(ConfigError):
        read_approvals(tmp_path)
