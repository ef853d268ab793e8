"""The private parts of Flower that we use exist, and do what we rely on."""

import hashlib
import sys
import tomllib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import flwr.supernode.runtime.run_clientapp as runtime
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse
from flwr.proto.task_pb2 import Task

from deploy import flower_adapter
from deploy.flower_adapter import FLOWER_VERSION, TaskQueue, answer_task, node_client
from deploy.kit.keys import make_authority
from deploy.kit.worker import only

ROOT = Path(__file__).parents[3]


def test_it_is_the_version_that_is_pinned() -> None:
    assert version("flwr") == FLOWER_VERSION
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"flwr[simulation]=={FLOWER_VERSION}" in project["dependencies"]


def test_nobody_else_uses_flowers_internals() -> None:
    public = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
    for package in ("client", "server", "dppm_model", "sampler", "deploy"):
        for path in (ROOT / package).rglob("*.py"):
            words = [line.split() for line in path.read_text().splitlines()]
            used = {w[1] for w in words if len(w) > 1 and w[0] in ("from", "import")}
            flower = {name for name in used if name.split(".")[0] == "flwr"}
            assert flower <= public or path.name == "flower_adapter.py", path


@pytest.fixture
def message() -> Message:
    flower_adapter.play_all_roles()
    made = Message(RecordDict({"q": ConfigRecord({"n": 1})}), dst_node_id=7, message_type="train")
    flower_adapter.number_message(made)
    return made


@pytest.fixture
def answered(message: Message, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Message]]:
    """Let `answer_task` answer ``message``, with this bundle beside it; return what is sent."""

    def ask(app: ClientApp, check: Callable[..., None], bundle: bytes) -> list[Message]:
        sent: list[Message] = []
        context = Context(1, 7, {}, RecordDict(), {})
        run = SimpleNamespace(fab_id="a/b", fab_version="1", run_id=1)
        fab = SimpleNamespace(content=bundle, hash_str=hashlib.sha256(bundle).hexdigest())
        taken = (message, context, run, fab)
        for name, stand_in in {
            "pull_task_input": lambda _: taken,
            "push_message": lambda _, reply, __: sent.append(reply),
            "start_parent_process_monitor": lambda _: None,
            "register_signal_handlers": lambda **_: None,
            "flwr_exit": lambda code, **_: sys.exit(code),
            "HeartbeatSender": lambda _: SimpleNamespace(start=lambda: None),
            "install_from_fab": runtime.install_from_fab,  # to be put back
            "get_load_client_app_fn": runtime.get_load_client_app_fn,
        }.items():
            monkeypatch.setattr(runtime, name, stand_in)
        monkeypatch.setattr(runtime, "RUNTIME_DEPENDENCY_INSTALL", False)
        answer_task("token", "127.0.0.1:1", check, app)
        return sent

    return ask


def test_a_bundle_is_checked_before_the_app_is_called(
    answered: Callable[..., list[Message]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind Flower's own code: another bundle than the approved one, and nothing is answered."""
    monkeypatch.setenv("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
    app, calls = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls.append(context)
        return Message(RecordDict({"a": ConfigRecord({"n": 2})}), reply_to=message)

    good, other = b"what was approved", b"something else"
    check = only(hashlib.sha256(good).hexdigest())
    (reply,) = answered(app, check, good)
    assert reply.content.config_records["a"]["n"] == 2 and len(calls) == 1
    (refused,) = answered(app, check, other)
    assert refused.has_error() and len(calls) == 1
    assert "BundleRefused" in str(refused.error.reason) and "<''>" in str(refused.error.reason)


@pytest.mark.parametrize("name", ["install_from_fab", "get_load_client_app_fn"])
def test_another_flower_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(runtime, name)
    for other in {"install_from_fab", "get_load_client_app_fn"} - {name}:
        monkeypatch.setattr(runtime, other, getattr(runtime, other))
    with pytest.raises(RuntimeError, match="not version"):
        answer_task("token", "127.0.0.1:1", only(""), None)


def test_a_task_is_taken_with_the_secret_and_without_one_there_is_none() -> None:
    seen: list[dict[str, str]] = []
    waiting = [AcquireTaskResponse(task=Task(run_id=3, fab_hash="f"), token="t")]

    class SuperNode(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert list(AcquireTaskRequest.FromString(body).supported_task_types)
            seen.append({key.lower(): value for key, value in self.headers.items()})
            content = (waiting.pop() if waiting else AcquireTaskResponse()).SerializeToString()
            self.send_response(200)
            self.send_header("content-type", self.headers["content-type"])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), SuperNode) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        queue = TaskQueue(f"127.0.0.1:{server.server_port}", b"s" * 32)
        task = queue.take()
        assert task and (task.run, task.bundle, task.token) == (3, "f", "t")
        assert queue.take() is None  # nothing waits
        server.shutdown()
    assert any("superexec" in key for key in seen[0]), seen[0]
    assert queue.take() is None  # nobody listens
    queue.close()


def test_a_node_can_ask_a_superlink(tmp_path: Path) -> None:
    make_authority("demo", tmp_path / "ca.crt", tmp_path / "ca.key")
    key = ec.generate_private_key(ec.SECP384R1())
    with node_client("127.0.0.1:1", tmp_path / "ca.crt", key) as client:
        for ask in (
            client.activate,
            lambda: client.deactivate(1),
            lambda: client.ask_for_no_run(1),
        ):
            with pytest.raises(flower_adapter.httpx.HTTPError):
                ask()
