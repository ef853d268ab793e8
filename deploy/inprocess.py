"""Flower's apps without Flower's processes: the same ServerApp and ClientApp, in one process.

Messages are copied, as a network would, and answered by a small thread pool. Tests use it, and
`dppm simulate backend=inprocess`.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

_FIRST_NODE = 2


class InProcessGrid(Grid):
    """A Grid whose nodes are contexts in this process.

    Parameters
    ----------
    client_app
        Answers every message.
    nodes
        Number of virtual nodes; node i has partition-id i.
    run_config
        What `flwr run --run-config` would pass.
    dropped
        Partition ids that never answer.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: int,
        run_config: dict[str, Any],
        *,
        workers: int = 1,
        dropped: Iterable[int] = (),
    ) -> None:
        self._app = client_app
        self._dropped = {i + _FIRST_NODE for i in dropped}
        self._contexts = {
            i + _FIRST_NODE: Context(
                run_id=1,
                node_id=i + _FIRST_NODE,
                node_config={"partition-id": i, "num-partitions": nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for i in range(nodes)
        }
        self._pool = ThreadPoolExecutor(workers)
        self._replies: dict[str, Future[Message]] = {}

    def set_run(self, run: Any) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Any:
        """There is no run record."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Refuse: messages are made with `Message`."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """All virtual nodes."""
        return list(self._contexts)

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node in self._dropped:
            return Message(Error(code=5, reason="node unavailable"), reply_to=message)
        try:
            return self._app(message, self._contexts[node])
        except Exception as error:  # what Flower turns into error 2
            return Message(Error(code=2, reason=repr(error)), reply_to=message)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue the messages and return their ids."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            ids.append(message.metadata.message_id)
            self._replies[ids[-1]] = self._pool.submit(self._answer, deepcopy(message))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are ready."""
        done = [i for i in message_ids if i in self._replies and self._replies[i].done()]
        return [self._replies.pop(i).result() for i in done]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push, wait, pull."""
        return [self._replies.pop(i).result(timeout) for i in self.push_messages(messages)]

    def close(self) -> None:
        """End the worker threads."""
        self._pool.shutdown(cancel_futures=True)


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    nodes: int,
    run_config: dict[str, Any],
    *,
    workers: int = 1,
    dropped: Iterable[int] = (),
) -> None:
    """Run a ServerApp against ``nodes`` virtual nodes; exceptions come through."""
    # Flower stamps messages with the identity of the process's task; here one process plays all.
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    grid = InProcessGrid(client_app, nodes, run_config, workers=workers, dropped=dropped)
    try:
        server_app(
            grid,
            Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=run_config),
        )
    finally:
        grid.close()
