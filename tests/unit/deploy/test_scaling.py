"""`dppm plan` says what a run costs, and `dppm plan --scale` where it stops being affordable."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import simulate as simulation
from deploy.cli import main
from deploy.cost.scaling import (
    MOST_MESSAGE,
    MOST_SERVER_MEMORY,
    PARAMETERS,
    SITES,
    most_sites,
    road,
    whole_numbers,
)
from deploy.cost.seconds import whole
from deploy.cost.show import bytes_text, road_notes, seconds_text
from deploy.cost.units import LAPTOP
from dppm_model import errors
from dppm_model.config import Config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.planner import make_plan
from tests.conftest import TINY


def run(*arguments: str) -> int:
    return main(list(arguments))


@pytest.fixture
def config(tiny: Path) -> Config:
    return simulation.resolve(TINY)


def unplannable(*_: object, **__: object) -> None:
    raise PlanError("no plan today", "Wait.")


def test_plan_prints_and_returns_its_cost(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *TINY) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "a site server all here up down" in shown
    assert "Simulated by inprocess" in shown and "deployed about" in shown and "Memory:" in shown
    assert run("plan", *TINY, "--json") == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost["simulated_seconds"] > 0 and cost["up_bytes"] > 1000
    means = cost["rounds"]["means"]
    assert means["site_seconds"].keys() >= {"records", "answers", "masks", "keys", "shares"}
    assert means["down_bytes"] > means["up_bytes"] > 0


def test_the_road_as_a_table_and_for_scripts(
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
    assert large["noise_over_clip_norm"] > 100 * small["noise_over_clip_norm"]
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
        ("--scale", "--at-sites", "0"),
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
    assert run("plan", *TINY, *arguments) == errors.ConfigError.exit_code
    shown = capsys.readouterr().err
    assert "Fix:" in shown and "--at-" in shown


def test_numbers_are_read_as_people_write_them() -> None:
    assert whole_numbers("--at-sites", "10,1e3,100000") == (10, 1000, 100_000)
    assert whole_numbers("--at-sites", None) == ()
    with pytest.raises(ConfigError, match="--at-sites is '10,,3'"):
        whole_numbers("--at-sites", "10,,3")


def test_where_the_planner_refuses_the_road_says_so_and_still_costs(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cost.scaling.make_plan", unplannable)
    (row,) = road(config, [100_000], [10**6])
    assert row.epsilon is None and row.refused == "no plan today"
    assert row.limits["server memory"] == "pairs"
    assert row.limits["site time"] in ("shares", "masks", "keys")
    assert whole(row.bill.server_memory) > 10 * MOST_SERVER_MEMORY
    assert any("no plan; no plan today" in note for note in road_notes([row], row))


def test_shares_of_sites_stay_shares(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look(privacy, phases, model, **more):  # type: ignore[no-untyped-def]
        asked.append((privacy, phases[0]))
        return make_plan(privacy, phases, model, **more)

    monkeypatch.setattr("deploy.cost.scaling.make_plan", look)
    privacy = {**config.tree["privacy"], "min_survivors": 2}
    held = replace(config, tree={**config.tree, "privacy": privacy})
    (row,) = road(held, [30], [10**4])
    ((request, phase),) = asked
    assert (request.sites, request.min_survivors, request.records) == (30, 20, 6000)
    assert phase.sampling_rate * 30 == pytest.approx(3 * 0.034)  # as many records as with three
    assert row.bill.load.threshold == 20


def test_the_largest_federation_is_where_a_limit_is_first_passed(config: Config) -> None:
    last = most_sites(config)
    assert last.limits and 10 < last.bill.load.sites < max(SITES)
    slow = most_sites(config, replace(LAPTOP, server_pair=1.0))
    assert slow.limits["server time"] == "pairs"
    assert slow.bill.load.sites == pytest.approx(30, abs=2)  # 900 s, one for each pair
    assert last.bill.load.phase.dimension == min(PARAMETERS)


def test_a_report_that_no_message_can_hold_is_named(config: Config) -> None:
    (row,) = road(config, [3], [3 * 10**9])
    assert row.bill.traffic.down > MOST_MESSAGE and row.limits["message"] == "model"


def test_figures_have_two_digits_and_a_unit_that_fits() -> None:
    assert [seconds_text(s) for s in (0.01234, 9.96, 119, 121, 7300)] == [
        *("0.012 s", "10 s", "119 s", "2 min", "2 h")
    ]
    assert [bytes_text(b) for b in (12, 1234, 2.5e6, 8e9, 2.3e13)] == [
        *("12 B", "1.2 kB", "2.5 MB", "8 GB", "23 TB")
    ]
