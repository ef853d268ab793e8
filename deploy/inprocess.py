"""The ServerApp and ClientApp in one process, without Flower's own processes.

Messages are copied, as by a network, and answered one at a time when replies are pulled. There are
no threads, so there are no races. Used by tests and by `dppm simulate backend=inprocess`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from deploy.flower_adapter import number_message, play_all_roles

_FIRST_NODE = 2


class InProcessGrid(Grid):
    """A Grid whose nodes are contexts in this process; node i has partition-id i.

    ``run_config`` holds the values that `flwr run --run-config` would pass.
    """

    def __init__(self, client_app: ClientApp, nodes: int, run_config: dict[str, Any]) -> None:
        self._app, self._run_config = client_app, run_config
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
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Any:
        """Return None: there is no run record."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Refuse: messages are made with `Message`."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """Return all virtual nodes."""
        return list(self._contexts)

    def answer(self, message: Message) -> Message:
        """Let the addressed node answer."""
        try:
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # Flower reports it as error 2
            return Message(Error(code=2, reason=repr(error)), reply_to=message)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue the messages and return their ids."""
        ids = []
        for message in messages:
            ids.append(number_message(message))
            self._waiting[ids[-1]] = deepcopy(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answer one of the messages and return its reply."""
        found = next((i for i in message_ids if i in self._waiting), None)
        return [] if found is None else [self.answer(self._waiting.pop(found))]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push and pull all."""
        del timeout
        return [self.answer(self._waiting.pop(i)) for i in self.push_messages(messages)]

    def play(self, server_app: ServerApp) -> None:
        """Run a ServerApp against the nodes; exceptions propagate."""
        play_all_roles()
        context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=self._run_config
        )
        server_app(self, context)
