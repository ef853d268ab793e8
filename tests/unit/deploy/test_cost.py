"""What a run costs: bytes exactly, memory by formula, time only where it was measured."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import simulate as simulation
from deploy.cost import timing
from deploy.cost.scaling import (
    MOST_MESSAGE,
    MOST_SERVER_MEMORY,
    SITES,
    most_sites,
    scaled_rounds,
    whole_numbers,
)
from deploy.cost.tables import bytes_text, scaling_notes, seconds_text
from deploy.cost.workload import (
    SERVER_VECTORS,
    SITE_VECTORS,
    run_traffic,
    workloads,
)
from dppm_model.config import Config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.planner import make_plan
from dppm_model.run import Run
from dppm_model.securesum.group import Group
from dppm_model.securesum.masks import Sum
from tests.conftest import TINY, run
from tests.support.flaky_grid import play


@pytest.fixture
def config(tiny: Path) -> Config:
    return simulation.resolve(TINY)


def prepared(folder: Path, sites: int, *more: str) -> Run:
    survivors = f"privacy.min_survivors={sites - 1}"
    made, _, _ = simulation.prepare(folder, [*TINY, f"sites={sites}", survivors, *more])
    return made


@pytest.mark.parametrize(
    ("sites", "more"),
    [
        (3, []),
        (7, []),
        (
            3,
            ["model=residual", "model.phases.score.rounds=2", "model.residual.network.channels=16"],
        ),
    ],
)
def test_bytes_are_those_that_a_run_records(
    sites: int, more: list[str], tmp_path: Path, tiny: Path
) -> None:
    made = prepared(tmp_path / "run", sites, *more)
    play(made)
    predicted, lines = run_traffic(workloads(made.plan())), made.rounds()
    for said, line in zip(predicted, lines, strict=True):
        assert sites * said.up == line["uplink_bytes"]
        assert sites * said.down == pytest.approx(line["downlink_bytes"], rel=0.02)


def test_memory_of_a_report_is_within_the_formula(tmp_path: Path, tiny: Path) -> None:
    d = 1 << 16
    phase = replace(
        workloads(prepared(tmp_path / "run", 3).plan())[0].phase,
        mechanism=BinomialMechanism(1.0, 0.05, 64),
        dimension=d,
    )
    group, sum_, rng = Group("r", "p", (bytes(32),), 1), Sum(0, phase.bits, d), SecureRNG()

    def site() -> bytes:
        nobody = KnownVectors(np.zeros((0, d), dtype=np.int64))
        tallies = phase.mechanism.encode(nobody, phase, b"seed", rng).astype(np.uint8)
        mask = sum_.ring.zeros()
        sum_.ring.add_mask(mask, bytes(32))
        return sum_.ring.pack(sum_.masked(group, tallies, mask)[0])

    def server() -> object:
        total = sum_.ring.zeros()
        total += sum_.ring.unpack(bytes(sum_.ring.packed_bytes))
        opened = sum_.without_checks(group, total.copy()).astype(np.int64)
        return total, opened, phase.mechanism.decode(opened, 10, phase, b"seed")

    assert 0.6 * SITE_VECTORS < _peak(site) / (8 * d) < 1.1 * SITE_VECTORS
    assert 0.6 * SERVER_VECTORS < _peak(server) / (8 * d) < 1.1 * SERVER_VECTORS


def _peak(function: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_time_is_unknown_until_a_round_was_timed_here(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(tiny, tmp_path / "store", ignore=lambda *_: [".round-seconds.json"])
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    assert run("plan", *TINY) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "not measured yet on this machine" in shown and "Memory" in shown
    assert run("plan", *TINY, "--json", "--measure") == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost["simulated_seconds"] > 0 and cost["up_bytes"] > 1000
    assert all(found["seconds"] > 0 for found in cost["rounds"].values())
    assert run("plan", *TINY) == 0
    assert "Simulated here by inprocess: about" in " ".join(capsys.readouterr().err.split())
    load = workloads(simulation.plan_of(simulation.resolve(TINY), "x"))[0]
    seconds = timing.round_seconds(load, "inprocess")
    assert seconds is not None and timing.round_seconds(load, "flower") is None
    twice = replace(load, phase=replace(load.phase, dimension=2 * load.phase.dimension))
    assert timing.round_seconds(twice, "inprocess") == pytest.approx(
        seconds * twice.numbers / load.numbers
    )
    (tmp_path / "store" / ".round-seconds.json").write_text("[")
    assert timing.run_seconds([load], "inprocess") is None


def test_larger_scales_as_a_table_and_for_scripts(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = ("--scale", "--at-sites", "3,12", "--at-parameters", "1e4,1e9")
    assert run("plan", *TINY, *ways, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(row["sites"], row["parameters"]): row for row in found["rows"]}
    assert rows.keys() == {(n, d) for n in (3, 12) for d in (10**4, 10**9)}
    for row in rows.values():
        assert 7.5 < row["epsilon_secure_sum"] <= 8  # what was asked for, and met
        assert 1 <= row["loss"] <= 1.03
    small, large = rows[3, 10**4], rows[3, 10**9]
    assert small["not_affordable"] == {}
    assert large["not_affordable"]["message"] == "model"
    # Four times the sites at the same batch: rounds are amplified, and need less noise.
    assert rows[12, 10**4]["noise_over_clip_norm"] < small["noise_over_clip_norm"]
    assert found["secure_sum_stops"]["not_affordable"]
    assert run("plan", *TINY, *ways) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "3 sites, 1e+09 parameters: not affordable:" in shown
    assert "Secure sum among all sites: at 1e+06 parameters it stops at about" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scale", "--at-sites", "ten"),
        ("--scale", "--at-sites", "1.5"),
        ("--scale", "--at-parameters", "10,-1e6"),
        ("--scale", "--at-parameters", "1e13"),
        ("--scale", "--at-parameters", "nan"),
        ("--at-sites", "10"),
    ],
)
def test_bad_scales_are_refused(
    tiny: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *TINY, *arguments) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert "Fix:" in shown and "--at-" in shown


def test_numbers_are_read_as_people_write_them() -> None:
    assert whole_numbers("--at-sites", "10,1e3,100000") == (10, 1000, 100_000)
    assert whole_numbers("--at-sites", None) == ()
    assert [seconds_text(s) for s in (0.01234, 119, 121, None)] == [
        "0.012 s",
        "119 s",
        "2 min",
        "not measured",
    ]
    assert [bytes_text(b) for b in (12, 1234, 8e9, 2.3e13)] == ["12 B", "1.2 kB", "8 GB", "23 TB"]


def test_a_refused_plan_is_reported_and_still_has_a_cost(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplannable(*_: object, **__: object) -> None:
        raise PlanError("no plan today", "Wait.")

    monkeypatch.setattr("deploy.cost.scaling.make_plan", unplannable)
    (row,) = scaled_rounds(config, [100_000], [10**6])
    assert row.epsilon is None and row.refused == "no plan today"
    assert row.limits["server memory"] == "pairs"
    assert sum(row.load.server_memory.values()) > 10 * MOST_SERVER_MEMORY
    assert any("no plan; no plan today" in note for note in scaling_notes([row], row))


def test_shares_of_sites_stay_shares(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look(privacy: Any, phases: Any, model: Any, **more: Any) -> Any:
        asked.append((privacy, phases[0]))
        return make_plan(privacy, phases, model, **more)

    monkeypatch.setattr("deploy.cost.scaling.make_plan", look)
    scaled_rounds(config.replace(privacy=config.privacy.replace(min_survivors=2)), [30], [10**4])
    ((request, phase),) = asked
    assert (request.sites, request.min_survivors, request.records) == (30, 20, 6000)
    assert phase.sampling_rate * 30 == pytest.approx(3 * 0.034)  # as many records as with three


def test_the_largest_federation_is_where_a_limit_is_first_passed(config: Config) -> None:
    last = most_sites(config)
    assert last.limits == {"server memory": "pairs"} and 10 < last.load.phase.sites < max(SITES)
    (row,) = scaled_rounds(config, [3], [3 * 10**9])
    assert row.load.traffic().down > MOST_MESSAGE and row.limits["message"] == "model"
