"""Persons from data to audit: a whole run in one process, protected by person by default."""

import json
from pathlib import Path

import pytest

from deploy.cli import main
from dppm_model.records.shards import open_records
from dppm_model.run import Run
from tests.conftest import TINY

PEOPLE = [*TINY, "data=people", "privacy.records_per_person=4"]


def test_a_run_protects_persons(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    assert main(["simulate", str(run.folder), *PEOPLE]) == 0
    privacy = json.loads(run.privacy.read_text())
    assert (privacy["unit"], privacy["records_per_person"]) == ("person", 4)
    assert privacy["adjacency"].startswith("add or remove one person, with all their records")
    assert {phase["records"] for phase in privacy["phases"]} == {120}
    assert len(run.rounds()) == run.plan().rounds
    assert run.rounds()[-1]["epsilon_secure_sum"] == privacy["epsilon_secure_sum"] <= 8

    # Nobody is at two sites.
    from client.site import Site
    from dppm_model.mechanism.secure_rng import SecureRNG

    sites = [Site(folder, SecureRNG()).records() for folder in sorted(run.sites.iterdir())]
    named = [set(records.persons.tolist()) for records in sites if records.persons is not None]
    assert sum(map(len, named)) == len(set.union(*named)) == 120
    assert sum(map(len, sites)) == len(open_records(people / "people" / "train"))

    # The same attacks as on records find no more than is claimed.
    capsys.readouterr()
    small = ["--canaries", "200", "--images", "50", "--trials", "1000", "--json"]
    assert main(["audit", str(run.folder), *small]) == 0
    games = json.loads(capsys.readouterr().out)["games"]
    assert any(game["game"].endswith("person in or out") for game in games)
    assert all(game["epsilon"] <= game["claim"] for game in games)


def test_persons_may_name_directions(people: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert main(["simulate", str(run.folder), *PEOPLE, "mechanism=directions"]) == 0
    assert {phase.max_count for phase in run.plan().phases} == {40}  # 120 persons at 3 sites
