"""All uses of Flower's private interfaces, for the one version that we pin.

Other modules use Flower's public ones directly (`flwr.app`, `flwr.clientapp`, `flwr.serverapp`, the
commands). ``tests/unit/deploy/test_flower_adapter.py`` covers each private one. This module imports
none of our packages: the process that runs a bundle imports it beside the bundle's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import flwr.supernode.runtime.run_clientapp as runtime
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

FLOWER_VERSION = "1.41.0"
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

build_bundle = build_fab_from_disk  # an app folder to the bytes that `flwr run` would ship


# In one process (`deploy.inprocess`).


def number_message(message: Message) -> str:
    """Give a message an id, as a network would, and return the id."""
    message.metadata.__dict__["_message_id"] = str(uuid4())
    return message.metadata.message_id


def play_all_roles() -> None:
    """Let this process send messages as if it were the task of a server and of every site."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


# In place of a site's SuperExec (`deploy.kit.code_allowlist`, `deploy.kit.worker`).


@dataclass(frozen=True)
class Task:
    """A message waiting at a SuperNode: its token, and the digest of the bundle to answer it."""

    run: int
    bundle: str
    token: str


class TaskQueue:
    """The messages of one SuperNode, from its Runtime API at ``host:port`` of this machine.

    It shares a secret with the SuperNode, so that no other program on this machine takes its tasks.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            address,
            insecure=True,  # loopback
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=[_ACQUIRE]),
            ],
        )

    def take(self) -> Task | None:
        """Take the oldest task; None if there is none, or the SuperNode does not answer."""
        try:
            response = self._client.AcquireTask(
                AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
            )
        except httpx.HTTPError:
            return None
        if not (response.HasField("task") and response.token):
            return None
        return Task(response.task.run_id, response.task.fab_hash, response.token)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def answer_task(token: str, address: str, check: Callable[..., None], app: Any) -> int:
    """Take the message of a token from a SuperNode, let ``app`` answer it, return an exit code.

    Parameters
    ----------
    check
        Replaces Flower's installation of the bundle: takes its bytes, and raises unless it is the
        app's bundle. Then the app is not called, and the server gets the error.
    app
        Replaces Flower's import of the bundle's ClientApp.
    """
    for name, stand_in in (
        ("install_from_fab", check),
        ("get_load_client_app_fn", lambda **_: lambda *_: app),
    ):
        if not hasattr(runtime, name):
            raise RuntimeError(f"Flower is not version {FLOWER_VERSION}.")
        setattr(runtime, name, stand_in)
    try:
        runtime.run_clientapp(address, token, insecure=True, parent_pid=os.getppid())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


# As a SuperNode would ask a SuperLink (`deploy.kit.connectivity`).


class NodeClient:
    """A client of a SuperLink with a node's key; it raises the errors of httpx."""

    def __init__(self, client: FleetHttpClient, key: ec.EllipticCurvePrivateKey) -> None:
        self._client, self._key = client, key

    def activate(self) -> int:
        """Connect as a SuperNode does, and return the node's number."""
        public = public_key_to_bytes(self._key.public_key())
        request = ActivateNodeRequest(
            public_key=public, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
        )
        return int(self._client.ActivateNode(request).node_id)

    def deactivate(self, node: int) -> None:
        """Disconnect."""
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=node))

    def ask_for_no_run(self, node: int) -> None:
        """Ask for a run that does not exist; the error shows whether the node is known."""
        self._client.GetRun(GetRunRequest(node=Node(node_id=node), run_id=0))


@contextlib.contextmanager
def node_client(
    address: str, authority: Path, key: ec.EllipticCurvePrivateKey
) -> Iterator[NodeClient]:
    """Connect to a SuperLink over TLS, trusting one authority, for the length of a block."""
    with FleetHttpClient.from_server_address(
        address,
        False,
        str(authority),
        interceptors=[NodeAuthHttpInterceptor(key, key.public_key())],
    ) as client:
        yield NodeClient(client, key)
