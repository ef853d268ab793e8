"""A running federation against those who should not get in, and sites that say no."""

import http.client
import json
import shutil
import ssl
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.cli.build import build_fab_from_disk
from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from client.policy import Policy
from deploy.flower import stage_app
from deploy.kit.announcement import Announcement
from deploy.kit.keys import make_authority, make_node_key
from dppm_model import errors
from dppm_model.folders import read_json_lines
from dppm_model.planner import epsilons
from dppm_model.privacy.ledger import Ledger
from dppm_model.records.shards import open_records
from tests.support.real_federation import REAL, TINY_FACTS, TINY_MODEL, Hosts, deal

pytestmark = [*REAL, pytest.mark.timeout(1200)]
AT_ONCE = ["server.retry_seconds=1", "server.max_retries=2", "server.wait_seconds=60"]


def federation(folder: Path, store: Path, port: int) -> Hosts:
    folder.mkdir(exist_ok=True)
    shards = deal(open_records(store / "tiny" / "train"), 3, folder)
    hosts = Hosts(folder, shards, f"localhost:{port}")
    hosts.found()
    return hosts


@pytest.fixture(scope="module")
def town(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A federation in the middle of a long run."""
    hosts = federation(tmp_path_factory.mktemp("town"), tiny_store, 18743)
    hosts.announce("long", *TINY_FACTS, *TINY_MODEL, "model.phases.components.rounds=500")
    hosts.approve("long", 0, 1, 2)
    hosts.serve("long")
    hosts.answer(0, 1, 2)
    hosts.wait_for_round("long", 1)
    yield hosts
    hosts.stop()


def post(hosts: Hosts, path: str, body: bytes = b"", **headers: str) -> int:
    """Send a request as it stands, without a library that would tidy its path."""
    host, port = hosts.address.split(":")
    context = ssl.create_default_context(cafile=str(hosts.fed / "tls" / "ca.crt"))
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
    connection.request("POST", path, body, {"content-type": PROTOBUF_MEDIA_TYPE, **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def signed(key_file: Path, moment: datetime) -> dict[str, str]:
    """Sign a time as Flower's SuperNode does."""
    key = load_ssh_private_key(key_file.read_bytes(), None)
    stamp = moment.isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),  # type: ignore[arg-type]
        "flwr-timestamp": stamp,
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, stamp.encode())).decode(),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "//v1/control/list-runs",
    ],
)
def test_nothing_but_the_fleet_is_published(town: Hosts, path: str) -> None:
    assert post(town, path) in ((403,) if "%2f" not in path else (403, 404))


def test_an_unknown_node_gets_nothing(town: Hosts, tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key")
    key = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    public = public_key_to_bytes(key.public_key())  # type: ignore[arg-type]
    activate = ActivateNodeRequest(public_key=public, heartbeat_interval=30).SerializeToString()
    register = RegisterNodeFleetRequest(public_key=public).SerializeToString()
    now = datetime.now(UTC)
    own = signed(tmp_path / "node.key", now)
    assert post(town, "/v1/fleet/activate-node", activate) == 401
    assert 400 <= post(town, "/v1/fleet/activate-node", activate, **own) < 500
    assert 400 <= post(town, "/v1/fleet/register-node", register, **own) < 500
    node = int((town.site(0) / "flower" / "node_id").read_text())
    as_another = GetRunRequest(node=Node(node_id=node), run_id=1).SerializeToString()
    assert post(town, "/v1/fleet/get-run", as_another, **own) == 401
    for path in ("pull-messages", "get-fab", "pull-object", "push-messages"):
        assert post(town, f"/v1/fleet/{path}", as_another, **own) >= 400


def test_an_old_message_sent_again_is_refused(town: Hosts) -> None:
    """Flower signs the time: five minutes and a few seconds later a request is worth nothing."""
    site = town.site(0)
    node = int((site / "flower" / "node_id").read_text())
    body = GetRunRequest(node=Node(node_id=node), run_id=1).SerializeToString()
    now = datetime.now(UTC)
    for moment in (now - timedelta(seconds=310), now + timedelta(minutes=1)):
        assert post(town, "/v1/fleet/get-run", body, **signed(site / "node.key", moment)) == 401
    fresh = signed(site / "node.key", datetime.now(UTC))  # the twin: known, and no such run
    assert post(town, "/v1/fleet/get-run", body, **fresh) != 401
    forged = {**fresh, "flwr-timestamp": datetime.now(UTC).isoformat()}
    assert post(town, "/v1/fleet/get-run", body, **forged) == 401


def test_a_site_does_not_talk_to_a_server_of_another_authority(town: Hosts, tmp_path: Path) -> None:
    site = shutil.copytree(town.site(0), tmp_path / "site", ignore=shutil.ignore_patterns("flower"))
    make_authority("other", site / "ca.crt", tmp_path / "other.key")
    said = town.type("site", "run", site, code=errors.Untrusted.exit_code)
    assert "wrong certificate" in said and "invitation" in said
    assert town.type("site", "preflight", site, code=46)


def test_a_site_that_is_not_enrolled_hears_what_to_do(town: Hosts, tmp_path: Path) -> None:
    site = tmp_path / "stranger"
    town.init_site(site, town.shards[0], limit=1.0)
    said = town.type("site", "run", site, code=errors.NotEnrolled.exit_code)
    assert "enrolment.json" in said and "dppm server enrol" in said
    assert town.type("site", "preflight", site, code=48)


def test_one_key_is_one_node(town: Hosts, tmp_path: Path) -> None:
    """Neither a second process in the folder nor a copy of the folder gets in beside the site."""
    said = town.type("site", "run", town.site(1), code=errors.InUse.exit_code)
    assert "Stop that process first" in said
    before = len(town.run("long").rounds())
    copy = shutil.copytree(town.site(1), tmp_path / "copy")
    noted = (copy / "audit.jsonl").read_bytes()
    said = town.type("site", "run", copy, code=errors.NotEnrolled.exit_code)
    assert "connected already" in said
    assert (copy / "audit.jsonl").read_bytes() == noted  # it was asked nothing
    town.wait_for_round("long", before + 2)  # the site itself has answered on


def test_a_budget_ends_and_no_unapproved_bundle_is_run(tiny_store: Path, tmp_path: Path) -> None:
    hosts = federation(tmp_path / "fed", tiny_store, 18843)
    try:
        two = "privacy.min_survivors=2"
        hosts.announce("budget", *TINY_FACTS, *TINY_MODEL, *AT_ONCE, two)
        hosts.approve("budget", 0, 1, 2)
        plan = hosts.run("budget").plan()
        policy = Policy.read(hosts.site(2) / "site.toml")
        enough = epsilons(plan, 3)["secure_sum"]  # for three rounds
        replace(policy, max_epsilon_secure_sum=enough).write(hosts.site(2) / "site.toml")
        hosts.serve("budget")
        hosts.answer(0, 1, 2)
        assert hosts.ended("server", 600) == 0, hosts.logs()
        sites = [r["sites"] for r in hosts.run("budget").rounds()]
        assert sites == [3, 3, 3] + [2] * (plan.rounds - 3)
        assert len(Ledger(hosts.site(2) / "ledger.jsonl").debits) == 3
        refused = (hosts.site(2) / "audit.jsonl").read_text()
        assert '"BudgetExhausted"' in refused
        policy.write(hosts.site(2) / "site.toml")

        # Another bundle than the third site has looked at.
        hosts.announce("other", *TINY_FACTS, *TINY_MODEL, *AT_ONCE, "server.round_seconds=30")
        hosts.approve("other", 2)
        path = hosts.run("other").folder / "announcement.zip"
        with tempfile.TemporaryDirectory() as folder:
            app = stage_app(Path(folder))
            with (app / "client" / "release.py").open("a") as file:
                file.write("\n# one line more\n")
            replace(Announcement.read(path), bundle=build_fab_from_disk(app)).write(path)
        said = hosts.type("site", "approve", hosts.site(0), path, "--yes")
        assert "DIFFERENT" in said and "client/reports.py" in said
        hosts.approve("other", 1)
        spent = Ledger(hosts.site(2) / "ledger.jsonl").debits
        hosts.serve("other")
        assert hosts.ended("server", 300) == errors.TooFewSites.exit_code, hosts.logs()
        assert "2 of 3" in hosts.said("server") or "must" in hosts.said("server")
        tasks = [a for a in read_json_lines(hosts.site(2) / "audit.jsonl") if a["event"] == "task"]
        assert not tasks[-1]["approved"] and tasks[0]["approved"]
        assert Ledger(hosts.site(2) / "ledger.jsonl").debits == spent
        # Once its operator has approved it, the same command goes on.
        hosts.approve("other", 2)
        hosts.serve("other")
        assert hosts.ended("server", 600) == 0, hosts.logs()
        assert len(Ledger(hosts.site(2) / "ledger.jsonl").debits) == 3 + plan.rounds
    finally:
        hosts.stop()


def test_the_audit_log_tells_all_that_left(town: Hosts) -> None:
    time.sleep(1)
    lines = read_json_lines(town.site(0) / "audit.jsonl")
    answers = [line for line in lines if line["event"] == "answer"]
    tasks = [line for line in lines if line["event"] == "task"]
    assert len(tasks) - len(answers) in (0, 1)
    debits = Ledger(town.site(0) / "ledger.jsonl").debits
    charged = [line for line in answers if line["charged"]]
    assert [line["round"] for line in charged] == [d.round for d in debits[: len(charged)]]
    for line in answers:
        assert line["bundle"] == tasks[0]["bundle"] and line["plan"] == debits[0].plan
        for part in line["released"].values():
            assert set(part) in ({"bytes", "sha256"}, {"error"})
    text = json.dumps(lines)
    assert "images" not in text and len(lines) > 4
