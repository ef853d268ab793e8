"""A real deployment: SuperLink, proxy and SuperNodes with TLS and node keys, killed and attacked.

    pytest -m slow tests/integration/test_deployment.py

Images are MNIST's, fetched if need be. Time per round is printed (pytest -s).
"""

import os
import re
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from dppm_model.errors import DownloadError
from dppm_model.planner import epsilons
from dppm_model.privacy.ledger import Ledger
from dppm_model.records.sources import fetch, load
from sampler.images import load_images
from tests.support.real_federation import REAL, Hosts, deal

pytestmark = [*REAL, pytest.mark.timeout(1800)]

SITES = 3
FACTS = [
    "data=mnist",
    "facts.shape=[1,28,28]",
    "facts.classes=10",
    "facts.records=60000",
    "privacy.unit=record",
]
PATIENT = ["server.retry_seconds=3"]
ROUNDS = 24  # by more rounds of a phase


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    try:
        fetch("mnist")
    except DownloadError as error:
        pytest.skip(str(error))
    return deal(load("mnist", "train"), SITES, tmp_path_factory.mktemp("shards"))


@pytest.fixture
def hosts(tmp_path: Path, shards: list[Path]) -> Iterator[Hosts]:
    made = Hosts(tmp_path, shards, "localhost:18543")
    yield made
    made.stop()


def test_everything_is_killed_once_and_nothing_is_lost_or_spent_twice(hosts: Hosts) -> None:
    hosts.found()
    hosts.announce("first", *FACTS, *PATIENT, "model.phases.components.rounds=12")
    hosts.approve("first", *range(SITES))
    hosts.serve("first")
    hosts.answer(*range(SITES))
    hosts.wait_for_round("first", 5)
    undisturbed = [r["seconds"] for r in hosts.run("first").rounds()[1:]]
    hosts.type("site", "preflight", hosts.site(2))
    (page,) = re.findall(r"watch it at (http://\S+/)", hosts.said("server"))
    state = httpx.get(f"{page}state.json", timeout=60).json()
    assert state["state"] == "running" and state["round"] >= 5
    assert state["sites_online"] == SITES

    hosts.kill("site-1")  # in mid round, SuperNode, gate, worker and all
    time.sleep(5)
    hosts.answer(1)
    hosts.wait_for_round("first", 7)
    os.kill(hosts.process("flower-superlink"), signal.SIGKILL)
    hosts.wait_for_round("first", 9)
    os.kill(hosts.process("flwr-serverapp"), signal.SIGKILL)
    hosts.wait_for_round("first", 11)
    os.kill(hosts.process("nginx: master"), signal.SIGKILL)
    hosts.wait_for_round("first", 13)
    hosts.kill("server")  # the operator's own command
    hosts.serve("first")
    assert hosts.ended("server", 900) == 0, hosts.logs()

    run = hosts.run("first")
    plan, rounds = run.plan(), run.rounds()
    median = statistics.median(undisturbed)
    print(f"\nseconds a round: median {median:.1f} undisturbed, {[r['seconds'] for r in rounds]}")
    assert len(rounds) == plan.rounds == ROUNDS
    assert all(r["sites"] == SITES for r in rounds)
    for folder in (run.folder, *map(hosts.site, range(SITES))):
        debits = Ledger(folder / "ledger.jsonl").debits
        assert len(debits) == ROUNDS
        assert len({(d.phase, d.round) for d in debits}) == ROUNDS
        hosts.type("ledger", "verify", folder)
    said = hosts.said("server")
    for name in ("superlink", "nginx", "The ServerApp"):
        assert f"{name} died" in said
    for number in range(SITES):
        status = hosts.ask("site", "status", hosts.site(number))
        assert status["epsilon_secure_sum"]["spent"] == pytest.approx(epsilons(plan)["secure_sum"])
    hosts.stop()
    hosts.type("sample", run.folder, "sampler.per_class=20", "pool.workers=0")
    images, labels = load_images(run.samples)
    assert images.shape == (200, 1, 28, 28) and set(labels) == set(range(10))
    shutil.copy(run.folder / "samples.png", hosts.folder.parent / "deployment-samples.png")
    assert np.ptp(images.mean(axis=(0, 1))) > 50  # digits: dark borders, bright middle
