"""The cost model counts what the code does: bytes, masks, shares, signatures, list entries."""

import os
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from deploy import simulate as simulation
from deploy.cost.load import GRADIENTS, MOMENTS_CHUNK, Load, loads
from deploy.cost.memory import server_memory, site_memory
from deploy.cost.run import Bill, RunCost
from deploy.cost.seconds import (
    SERVER_FLUSHES,
    SITE_FLUSHES,
    WATCH_PAUSE,
    answer_seconds,
    first_seconds,
    site_seconds,
    whole,
)
from deploy.cost.traffic import LIST_ITEMS, site_traffic
from deploy.cost.units import LAPTOP, Kind, Units
from dppm_model.config import Config
from dppm_model.mechanism.gradients import CHUNK
from dppm_model.run import Run
from dppm_model.score import class_sums
from dppm_model.score.fine_covariance import FineCovarianceQuery
from dppm_model.score.phases import PHASES
from dppm_model.securesum import member, round_keys, shamir
from dppm_model.securesum.masks import CHECKS
from dppm_model.securesum.ring import Ring
from server.securesum import attempt
from tests.conftest import TINY
from tests.support.flaky_grid import play

FREE = replace(
    LAPTOP,
    kinds={kind: Kind(0.0, 0.0, 0.0, 0.0) for kind in LAPTOP.kinds},
    **{f.name: 0.0 for f in fields(Units) if f.name not in ("machine", "cores", "kinds")},
)


def prepared(folder: Path, sites: int, *more: str) -> tuple[Run, Config]:
    survivors = f"privacy.min_survivors={sites - 1}"
    run, config, _ = simulation.prepare(folder, [*TINY, f"sites={sites}", survivors, *more])
    return run, config


def count(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, what: Any) -> Counter[str]:
    """Count what each call of a function amounts to, ``what(*arguments)``."""
    counted, real = Counter[str](), getattr(where, name)

    def wrapped(*arguments: Any, **more: Any) -> Any:
        counted["calls"] += 1
        counted["amount"] += what(*arguments)
        return real(*arguments, **more)

    monkeypatch.setattr(where, name, wrapped)
    return counted


@pytest.mark.parametrize("sites", [3, 7])
def test_bytes_are_those_that_a_run_records(sites: int, tmp_path: Path, tiny: Path) -> None:
    run, config = prepared(tmp_path / "run", sites)
    play(run)
    predicted = RunCost.of(run.plan(), config).traffic()
    lines = run.rounds()
    assert len(predicted) == len(lines)
    for said, line in zip(predicted, lines, strict=True):
        assert sites * said.up == line["uplink_bytes"]
        assert sites * said.down == pytest.approx(line["downlink_bytes"], rel=0.01)


def test_a_networks_weights_are_in_the_model_that_is_sent(tmp_path: Path, tiny: Path) -> None:
    run, config = prepared(
        *(tmp_path / "run", 3, "model=residual", "model.phases.score.rounds=2"),
        *("model.residual.channels=16", "model.residual.blocks=2"),
    )
    play(run)
    predicted, lines = RunCost.of(run.plan(), config).traffic(), run.rounds()
    assert lines[-1]["phase"] == "score"
    weights = predicted[-2].down - predicted[1].down
    assert weights > 0.2 * predicted[-2].down  # or this test would not see them
    for said, line in zip(predicted, lines, strict=True):
        assert 3 * said.down == pytest.approx(line["downlink_bytes"], rel=0.02)


def test_masks_and_shares_are_counted(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 5
    run, config = prepared(tmp_path / "run", n)
    rounds, t = run.plan().rounds, run.plan().min_survivors
    size = lambda ring, *_: ring.length * ring.dtype.itemsize  # noqa: E731
    masks = count(monkeypatch, Ring, "add_mask", size)
    steps = count(
        monkeypatch, shamir, "split", lambda _, holders, least, *__: len(holders) * (least - 1)
    )
    play(run)
    assert masks["calls"] == rounds * ((n + 1) * (n + CHECKS) + CHECKS)

    def total(units: Units, *names: str) -> float:
        cost = RunCost.of(run.plan(), config, units)
        of_sites = sum(
            b.load.phase.rounds * (n * b.site[name] + b.server.get(name, 0))
            for b in cost.bills
            for name in names
        )
        return of_sites + n * sum(first_seconds(cost.bills[0].load, units)[k] for k in ("shares",))

    assert total(replace(FREE, mask_byte=1), "masks") == pytest.approx(masks["amount"], rel=0.05)
    last = n * 2 * n * (t - 1)  # the last round prepares none
    assert total(replace(FREE, field=1), "shares") - last == steps["amount"]


@pytest.mark.parametrize("n", [3, 6])
def test_a_signature_costs_the_same_however_many_sites_there_are(
    n: int, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = prepared(tmp_path / "run", n)
    size = lambda _, statement, __: len(statement)  # noqa: E731
    at_sites = count(monkeypatch, member, "verify", size)
    at_server = count(monkeypatch, attempt, "verify", size)
    of_words = count(monkeypatch, round_keys, "verify", size)  # of materials, and of check numbers
    play(run)
    rounds = run.plan().rounds
    assert at_sites["calls"] == n * n * rounds and at_server["calls"] == n * rounds
    assert of_words["calls"] == 2 * n * rounds
    for verified in (at_sites, at_server, of_words):
        assert verified["amount"] / verified["calls"] < 256  # bytes


def test_flushes_are_counted(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, flushed = 4, Counter[str]()
    run, _ = prepared(tmp_path / "run", n)

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        flushed["site" if path.is_relative_to(run.sites) else "server"] += 1

    monkeypatch.setattr(os, "fsync", fsync)
    play(run)
    rounds = run.plan().rounds
    assert flushed["site"] == pytest.approx(n * rounds * SITE_FLUSHES, rel=0.1)
    assert flushed["server"] == pytest.approx(rounds * SERVER_FLUSHES, rel=0.1)


def test_entries_of_lists_are_counted(tmp_path: Path, tiny: Path) -> None:
    n, entries = 7, 0

    def see(_: int, message: Message) -> None:
        nonlocal entries
        for record in message.content.config_records.values():
            entries += sum(len(value) for value in record.values() if isinstance(value, list))

    run, _ = prepared(tmp_path / "run", n)
    play(run, edit=see, seen=see)
    rounds = run.plan().rounds  # the first has one preparation more, the last one less
    assert entries == pytest.approx(n * rounds * LIST_ITEMS * n, rel=0.05)


def test_every_kind_of_phase_has_a_cost() -> None:
    assert LAPTOP.kinds.keys() == PHASES.keys() > set(GRADIENTS)
    assert min(min(kind) for kind in LAPTOP.kinds.values()) >= 0


def test_the_last_chunk_of_records_is_filled_up(tmp_path: Path, tiny: Path) -> None:
    assert MOMENTS_CHUNK == class_sums._MOST_RECORDS == FineCovarianceQuery.chunk
    load = _load(tmp_path, 3)
    assert load.phase.divisor / 3 == 200 and load.records == MOMENTS_CHUNK
    assert _with(load, records=3000).records == 4 * MOMENTS_CHUNK
    gradient = replace(load, phase=replace(load.phase, name="score", records=195))
    assert gradient.records == 2 * CHUNK
    assert _with(load, records=1, sites=3).records == pytest.approx(MOMENTS_CHUNK / 3)


def _load(folder: Path, sites: int) -> Load:
    run, _ = prepared(folder / "run", sites)
    return loads(run.plan())[0]


def _with(load: Load, **changes: Any) -> Load:
    return replace(load, phase=replace(load.phase, **changes))


def test_costs_rise_with_sites_records_answers_and_coordinates(tmp_path: Path, tiny: Path) -> None:
    load = _load(tmp_path, 3)
    response = load.phase.response
    more = {
        "sites": _with(load, sites=300, records=100 * load.phase.records),
        "records": _with(load, records=10 * load.phase.records),
        "answers": _with(load, response=replace(response, responses=1 << 18)),  # type: ignore[type-var]
        "dimension": _with(load, dimension=64 * load.phase.dimension),
        "threshold": replace(_with(load, sites=300), threshold=300),
    }
    for name, larger in more.items():
        for backend in ("flower", "inprocess"):
            one, two = (Bill(x, LAPTOP, backend) for x in (load, larger))
            assert one.simulated < two.simulated, name
            assert one.deployed < two.deployed, name
        assert whole(site_seconds(load, LAPTOP)) < whole(site_seconds(larger, LAPTOP)), name
        if name in ("sites", "dimension"):
            assert whole(site_memory(load, LAPTOP)) < whole(site_memory(larger, LAPTOP))
            assert whole(server_memory(load, LAPTOP)) < whole(server_memory(larger, LAPTOP))
            assert site_traffic(load).up < site_traffic(larger).up
            assert site_traffic(load).down < site_traffic(larger).down or name == "dimension"


def test_persons_cost_more_than_records(tmp_path: Path, tiny: Path) -> None:
    load = _load(tmp_path, 3)
    persons = replace(load, records_per_person=8)
    assert site_seconds(persons, LAPTOP)["records"] > 4 * site_seconds(load, LAPTOP)["records"]


def test_answers_cost_two_coins_each() -> None:
    word, table = replace(FREE, answer_word=1.0), replace(FREE, answer_table=1.0)
    assert answer_seconds(640, word) == 20 and answer_seconds(640, table) == 0
    assert answer_seconds(1 << 20, table) == 2 * 64
    assert answer_seconds(1 << 20, word) < 513


def test_a_simulation_shares_its_cores_and_a_deployment_does_not(
    tmp_path: Path, tiny: Path
) -> None:
    units = replace(FREE, site=6.0, parallel=2.0, poll=1.0, server=0.5)
    load = _load(tmp_path, 3)
    assert Bill(load, units, "flower").simulated == 3 * 6 / 2 + 0.5
    assert Bill(load, units, "inprocess").simulated == 3 * 6 + 0.5
    once = replace(units, kinds={**units.kinds, "means": Kind(4.0, 0.0, 0.0, 0.0)}, cores=2)
    assert Bill(load, once, "flower").simulated == 3 * 6 / 2 + 4 + 0.5  # both at the same time
    # Looking for nine halves of a message, as long as the pause: half a core is left less.
    busy = replace(units, watch=WATCH_PAUSE / 4.5)
    assert Bill(load, busy, "flower").simulated == pytest.approx(3 * 6 / 1.5 + 0.5)
    assert Bill(load, busy, "inprocess").simulated == 3 * 6 + 0.5
    bill = Bill(load, units, "flower")
    assert bill.deployed == pytest.approx(6 + 0.5 + 2 + bill.transfer)
