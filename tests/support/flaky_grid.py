"""In-process grids that lose, change or record messages."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from client.app import create_app
from deploy.inprocess import InProcessGrid
from dppm_model.fault_points import FaultPoint
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from server.app import app as server_app
from tests.support.seeded_rng import SeededRNG

# lost(site, message type, replied): whether the message is lost, or (replied) the reply to it
Lost = Callable[[int, str, bool], bool]


# All that may leave a site; a refusal of any of it leaves `REFUSAL`, or only its first field.
FIELDS = {
    "query.join": {"member": {"identity", "channel", "signature", "proof"}},
    "train": {"report": {"masked", "digest", "signature", "checks", "checks_signature"}},
    "query.open": {
        "shares": {"sites", "shares"},
        "material": {"mask_key", "commitment", "signature", "digests", "sites", "shares"},
    },
    "query.checks": {"checks": {"sites", "values", "signature"}},
    "query.remove": {"keys": {"sites", "keys"}},
}
REFUSAL = {"error", "accused"}


def check_declared(reply: Message) -> None:
    """Nothing is in a reply but declared fields, all of them."""
    declared = FIELDS[reply.metadata.message_type]
    refused = {"refusal", "no_shares", "no_material"}
    assert set(reply.content) <= declared.keys() | refused
    assert not reply.content.array_records and not reply.content.metric_records
    for name, record in reply.content.config_records.items():
        if name in refused:
            assert {"error"} <= set(record) <= REFUSAL
        else:
            assert set(record) == declared[name]


class Killed(BaseException):
    """The whole process dies."""


class SiteDied(BaseException):
    """The process of one site dies while it answers."""


def dies(
    step: FaultPoint, nth: int, death: type[BaseException] = Killed
) -> Callable[[FaultPoint], None]:
    """For `watched`: die when a step is reached the nth time."""
    count = Counter[FaultPoint]()

    def watcher(now: FaultPoint) -> None:
        count[now] += 1
        if now is step and count[now] == nth:
            raise death

    return watcher


def assert_same_model(run: Run, whole: Run) -> None:
    """Two runs have ended with the same model, bit for bit."""
    assert ScoreModel.load(run.model).to_bytes() == ScoreModel.load(whole.model).to_bytes()


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


def play(run: Run, grid: type[FlakyGrid] = FlakyGrid, **faults: Any) -> None:
    """Train a run folder in one process, with replayable answers, from wherever it stands."""
    settings = {"run": str(run.folder), "sites": str(run.sites)}
    grid(create_app(SeededRNG), run.plan().sites, settings, **faults).play(server_app)


def twin_of(run: Run, folder: Path) -> Run:
    """Copy a run folder: the same plan and the same split, in another folder."""
    shutil.copytree(run.folder, folder)
    return Run(folder)


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
