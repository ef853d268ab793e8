"""A server that lies, through the very messages it sends: every lie is refused by name."""

import logging
import tomllib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from client.app import create_app
from client.audit_log import described
from deploy import simulate as simulation
from dppm_model.errors import TooFewSites
from dppm_model.folders import read_json_lines
from dppm_model.plan import Plan
from dppm_model.privacy.ledger import Ledger
from dppm_model.run import Run
from dppm_model.securesum.masks import Sum
from tests.conftest import TINY
from tests.support.few_rounds import FOUR_ROUNDS
from tests.support.flaky_grid import FlakyGrid, check_declared, play, twin_of
from tests.support.mutations import twin
from tests.support.plan_factory import with_mechanism
from tests.support.seeded_rng import SeededRNG, chi_square


@pytest.fixture(scope="module")
def prepared(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPPM_DATA", str(tiny_store))
        settings = [*FOUR_ROUNDS, "server.max_retries=0", "sites=4"]
        folder = tmp_path_factory.mktemp("lies") / "run"
        return simulation.prepare(folder, [*TINY, *settings])[0]


Records = dict[str, ConfigRecord]
Lie = Callable[[Records], None]


def change(record: str, *fields: str, to: Callable[[Any], Any]) -> Lie:
    """Change fields of a record that is sent to a site."""

    def lie(records: Records) -> None:
        for field in fields:
            records[record][field] = to(records[record][field])

    return lie


def change_plan(to: Callable[[Plan], Plan]) -> Lie:
    return change("question", "plan", to=lambda text: to(Plan.from_json(str(text))).to_json())


def a_bit_flipped_in_a_share(records: Records) -> None:
    """In one of a peer's: the site has none of its own."""
    shares = list(records["participants"]["shares"])
    peer = [bool(share) for share in shares].index(True)
    shares[peer] = bytes([shares[peer][0] ^ 1]) + shares[peer][1:]
    records["participants"]["shares"] = shares


def lower_threshold(plan: Plan) -> Plan:
    phases = tuple(replace(phase, honest_sites=3) for phase in plan.phases)
    return replace(plan, min_survivors=3, phases=phases)


def less_noise(plan: Plan) -> Plan:
    first = with_mechanism(plan.phases[0], truth_strength=0.4)
    return replace(plan, phases=(first, *plan.phases[1:]))


another_round = change("question", "round", to=lambda _: 7)
SENT = ("sites", "mask_keys", "commitments", "digests", "shares")
LIES: dict[str, tuple[str, Lie, str]] = {
    "fewer survivors": (
        "query.open",
        change("survivors", "sites", "signatures", to=lambda values: values[:3]),
        "TooFewSurvivors",
    ),
    "fewer participants": (
        "train",
        change("participants", *SENT, to=lambda values: values[:3]),
        "TooFewSurvivors",
    ),
    "a bit of a share flipped": ("train", a_bit_flipped_in_a_share, "ForgedShare"),
    "a channel of the server's": (
        "query.open",
        change("channels", "channels", to=lambda keys: [bytes(range(32)), *keys[1:]]),
        "UnknownSite|ChangedKey",
    ),
    "another round": ("train", another_round, "PlanError"),
    "the next phase": (
        "train",
        change("question", "phase", to=lambda phase: int(phase) + 1),
        "StaleRound",
    ),
    "less noise": ("train", change_plan(less_noise), "NotApproved|PlanError|LedgerError"),
    "a lower threshold": (
        "train",
        change_plan(lower_threshold),
        "NotApproved|PlanError|LedgerError",
    ),
    "malformed": (
        "train",
        change("participants", "sites", to=lambda _: [0, 0, 1, 2]),
        "WrongReport",
    ),
}


@twin(
    "the text of a refusal travels to the server",
    "client.app:_log",
    lambda old: lambda error: f"{old(error)}: {error.message}",
    only="[another round-0-0]",
)
@pytest.mark.parametrize(("round_", "place"), [(0, 0), (2, 1), (0, 2), (2, 3)])
@pytest.mark.parametrize("name", LIES)
def test_every_lie_is_refused_by_name_and_answers_nothing(
    prepared: Run, tmp_path: Path, name: str, round_: int, place: int
) -> None:
    kind, lie, error = LIES[name]
    run = twin_of(prepared, tmp_path / "run")
    keys = tomllib.loads(run.roster.read_text())
    victim = int(sorted(keys, key=lambda site: keys[site])[place].removeprefix("site-"))
    lied: list[bool] = []
    replies = []

    def edit(site: int, message: Message) -> None:
        records = message.content.config_records
        lying = (site, message.metadata.message_type, len(run.rounds())) == (victim, kind, round_)
        if lying and (kind != "query.open" or "survivors" in records):
            lied.append(True)
            lie(records)

    def seen(site: int, reply: Message) -> None:
        if lied and site == victim:
            replies.append(dict(reply.content.config_records))

    if "channel" in name:  # keys are asked for again
        play(run, edit=edit, seen=seen)
    else:
        with pytest.raises(TooFewSites, match=f"{error}|keys or shares of"):
            play(run, edit=edit, seen=seen)
    refused = [r for r in replies[0].values() if "error" in r]
    assert refused[0]["error"] in error.split("|")
    assert "report" not in replies[0]
    if "surviv" in name:
        assert "shares" not in replies[0]


def test_no_other_try_of_an_opened_round_is_answered(prepared: Run, tmp_path: Path) -> None:
    """After the last round was opened, the server asks for it once more in every way."""
    run = twin_of(prepared, tmp_path / "run")
    asked: dict[str, Message] = {}
    replies: dict[str, dict[str, ConfigRecord]] = {}

    def edit(site: int, message: Message) -> None:
        if site == 0:
            asked[message.metadata.message_type] = message
            if "channels" in message.content.config_records:
                asked["channels"] = message

    def seen(site: int, reply: Message) -> None:
        if site == 0 and "shares" in reply.content.config_records:
            replies["open"] = dict(reply.content.config_records)

    play(run, edit=edit, seen=seen)
    grid = FlakyGrid(create_app(SeededRNG), 4, {"run": str(run.folder), "sites": str(run.sites)})
    ledger = run.sites / "0000" / "ledger.jsonl"
    debits, plan = Ledger(ledger).debits, run.plan()
    number = Sum.of(plan, len(plan.phases) - 1, plan.phases[-1].rounds - 1).number

    def answer(like: str, kind: str, **records: dict[str, object]) -> dict[str, ConfigRecord]:
        message = deepcopy(asked[like])
        message.metadata.__dict__["_message_type"] = kind
        for name, fields in records.items():
            kept = message.content.config_records.get(name, ConfigRecord())
            message.content[name] = ConfigRecord({**kept, **fields})  # type: ignore[dict-item]
        return dict(grid.answer(message).content.config_records)

    for attempt in (1, 2, 4095):
        again = answer("channels", "query.open", channels={"round": number + attempt})
        assert again["no_material"]["error"] == "RoundOpened"
        train = answer("train", "train", question={"attempt": attempt})
        assert train["refusal"]["error"] == "RoundOpened"
        shares = answer("query.open", "query.open", survivors={"round": number + attempt})
        assert shares["no_shares"]["error"] == "RoundOpened"
        checks = answer(
            "train", "query.checks", question={"attempt": attempt}, peers={"sites": [1]}
        )
        assert checks["refusal"]["error"] == "RoundOpened"
    too_many = answer("train", "train", question={"attempt": 4096})
    assert too_many["refusal"]["error"] == "PlanError"
    nobody = answer("train", "query.checks", peers={"sites": [77]})
    assert nobody["refusal"]["error"] == "UnknownSite"
    assert Ledger(ledger).debits == debits
    told = answer("query.open", "query.open")["shares"]
    assert dict(told) == dict(replies["open"]["shares"])  # the opened shares are still the same


@twin(
    "refusals are not noted in the audit log",
    "client.audit_log:note",
    lambda old: (
        lambda folder, event, **facts: (
            None if "refusal" in facts["released"] else old(folder, event, **facts)
        )
    ),
)
def test_all_that_leaves_a_site_is_in_its_audit_log_before(prepared: Run, tmp_path: Path) -> None:
    """Each reply, refusals too: who asked, which plan, digests of what left, and what it cost."""
    run = twin_of(prepared, tmp_path / "run")
    plan, noted = run.plan(), 0

    def edit(site: int, message: Message) -> None:
        if site == 1 and message.metadata.message_type == "train" and not run.rounds():
            another_round(message.content.config_records)

    def seen(site: int, reply: Message) -> None:
        nonlocal noted
        lines = read_json_lines(run.sites / f"{site:04d}" / "audit.jsonl")
        records = {n: dict(r) for n, r in reply.content.config_records.items()}
        assert lines[-1]["released"] == described(records)
        assert lines[-1]["message_id"] == reply.metadata.reply_to_message_id
        assert lines[-1]["plan"] == plan.digest
        noted += 1

    with pytest.raises(TooFewSites, match="PlanError"):
        play(run, edit=edit, seen=seen)
    play(run, seen=seen)
    sites = sorted(run.sites.iterdir())
    assert noted == sum(len(read_json_lines(site / "audit.jsonl")) for site in sites)
    for site in sites:
        lines = read_json_lines(site / "audit.jsonl")
        charged = [line for line in lines if line["charged"]]
        assert len(charged) == plan.rounds == len(Ledger(site / "ledger.jsonl").debits)
        assert charged[-1]["ledger"] == Ledger(site / "ledger.jsonl").head
        mus = [line["charged"][0]["secure_sum_mu"] for line in charged]
        assert mus == [d.secure_sum.mu for d in Ledger(site / "ledger.jsonl").debits]


def test_nothing_is_released_that_cannot_be_noted(prepared: Run, tmp_path: Path) -> None:
    run = twin_of(prepared, tmp_path / "run")
    log = run.sites / "0002" / "audit.jsonl"
    log.mkdir(parents=True)  # nothing can be appended to that
    with pytest.raises(TooFewSites, match="InternalError"):
        play(run)
    assert Ledger(run.sites / "0002" / "ledger.jsonl").debits == ()


@twin(
    "a reply carries an undeclared field",
    "dppm_model.securesum.wire:write_shares",
    lambda old: lambda shares: {**old(shares), "loss": 1.0},
)
def test_every_byte_that_leaves_a_site_is_declared(
    prepared: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No array, metric, loss or count leaves; sizes are constant; masked reports are uniform.

    And a client that answers says nothing: no log line at any level, no print.
    """
    caplog.set_level(logging.DEBUG)
    run = twin_of(prepared, tmp_path / "run")
    plan = run.plan()
    masked: dict[int, list[bytes]] = {}

    def seen(_: int, reply: Message) -> None:
        check_declared(reply)
        if "report" in reply.content.config_records:
            report = reply.content.config_records["report"]["masked"]
            masked.setdefault(len(run.rounds()), []).append(report)

    play(run, seen=seen)
    assert caplog.text == "" and capfd.readouterr() == ("", "")
    rounds = [(i, j) for i, phase in enumerate(plan.phases) for j in range(phase.rounds)]
    for number, reports in masked.items():
        sum_ = Sum.of(plan, *rounds[number])
        assert {len(r) for r in reports} == {sum_.ring.packed_bytes}
        assert len(set(reports)) == 4
        values = np.concatenate([sum_.ring.unpack(r) for r in reports]) >> max(0, sum_.bits - 8)
        cells = 1 << min(8, sum_.bits)
        expected = np.full(cells, len(values) / cells)
        assert chi_square(np.bincount(values, minlength=cells), expected) > 1e-6
