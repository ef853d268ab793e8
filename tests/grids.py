"""In-process grids that lose, change or record messages."""

from collections.abc import Callable
from typing import Any

from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from deploy.inprocess import InProcessGrid

# lost(site, message type, replied): whether the message is lost, or (replied) the reply to it
Lost = Callable[[int, str, bool], bool]


class SiteDied(BaseException):
    """The process of one site dies while it answers."""


class FlakyGrid(InProcessGrid):
    """Loses messages or replies as ``lost`` says; ``edit`` may change what arrives at a site."""

    def __init__(
        self,
        client_app: ClientApp,
        nodes: int,
        run_config: dict[str, Any],
        *,
        lost: Lost = lambda *_: False,
        edit: Callable[[int, Message], None] = lambda *_: None,
        seen: Callable[[int, Message], None] = lambda *_: None,
    ) -> None:
        super().__init__(client_app, nodes, run_config)
        self._lost, self._edit, self._seen = lost, edit, seen

    def answer(self, message: Message) -> Message:
        site, kind = message.metadata.dst_node_id - 2, message.metadata.message_type
        gone = Message(Error(code=5, reason="node unavailable"), reply_to=message)
        if self._lost(site, kind, False):
            return gone
        self._edit(site, message)
        try:
            reply = super().answer(message)
        except SiteDied:
            return gone
        self._seen(site, reply)
        return gone if self._lost(site, kind, True) else reply


class LateGrid(FlakyGrid):
    """The last site connects only after ``messages`` messages have been pushed."""

    messages = 9

    def push_messages(self, messages: Any) -> list[str]:
        messages = list(messages)
        self.messages -= len(messages)
        return super().push_messages(messages)

    def get_node_ids(self) -> list[int]:
        nodes = super().get_node_ids()
        return nodes if self.messages <= 0 else [n for n in nodes if n != max(nodes)]
