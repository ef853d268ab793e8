"""What a message of Flower's simulation costs, by an app that only keeps a core busy and answers.

    python -m tests.benchmarks.unit_costs.messages

The real SuperLink, Ray and our own way of asking many sites; only ``server/app.py`` and
``client/app.py`` are others (``echo/``). Each case differs from the first in one thing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.app import Message, RecordDict
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from deploy.flower import run_flower, stage_app
from tests.benchmarks.unit_costs.clock import seconds

ECHO = Path(__file__).parent / "echo"
NODES, FEW = 40, 4
STORED = 200  # messages
WORK = 20  # milliseconds that a site is busy: where all cores are, a message waits for one
DOWN, UP, ITEMS = 4_000_000, 1_000_000, 3000
_BARE = {"nodes": NODES, "work": WORK, "down": 0, "up": 0, "items": 0, "rounds": 5}
CASES = {
    "warm": _BARE | {"rounds": 1},  # the workers import what they need
    "bare": _BARE,
    "few": _BARE | {"nodes": FEW},
    "down": _BARE | {"down": DOWN, "rounds": 3},
    "up": _BARE | {"up": UP, "rounds": 3},
    "items": _BARE | {"items": ITEMS, "rounds": 3},
}


def messages() -> dict[str, float]:
    """Unit costs by the names of `deploy.cost.units.Units`."""
    start, seen = echo()
    found = {case: statistics.median(each["seconds"]) for case, each in seen.items()}
    each = (found["bare"] - found["few"]) / (NODES - FEW)
    message = max(0.0, each - WORK / 1000 / (os.cpu_count() or 1))

    def beside(case: str, amount: int) -> float:
        return max(0.0, found[case] - found["bare"]) / NODES / amount

    # The share of Ray and Flower, beside imports of site and server. Later cases share memory in
    # which Ray hands their long messages over, and which the kernel counts too.
    return {
        "actor_bytes": seen["bare"]["site"] - imported("client.app"),
        "grid_bytes": seen["bare"]["server"] - imported("server.app"),
        "watch": watch(),
        "start": start,
        "exchange": max(0.0, found["bare"] - NODES * each),
        "message": message,
        "down_byte": beside("down", DOWN),
        "up_byte": beside("up", UP),
        "item": beside("items", 3 * ITEMS),  # two lists in the question, one in the reply
    }


def watch() -> float:
    """Processor seconds with which the simulation looks at one message, for one node."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # messages bear it
    state = InMemoryLinkState(NoOpFederationManager(), None)  # type: ignore[arg-type]
    state.run_ids[1] = SimpleNamespace(run=SimpleNamespace(federation_id="@none/default"))  # type: ignore[assignment]
    for node in range(STORED):
        message = Message(RecordDict(), dst_node_id=node + 1, message_type="query.echo")
        message.metadata.delivered_at = "now"
        state.message_ins_store[str(node)] = message
    return seconds(lambda: state.get_message_ins(STORED + 1, 1)) / STORED


def echo() -> tuple[float, dict[str, dict[str, Any]]]:
    """Play the cases.

    Returns
    -------
    Seconds of the whole run but its rounds, and what each case took: ``seconds`` of its rounds,
    peak bytes of a ``site`` and of the ``server`` so far.
    """
    with tempfile.TemporaryDirectory() as temporary:
        app = stage_app(Path(temporary) / "app")
        for name in ("client", "server"):
            shutil.copy(ECHO / f"{name}_app.py", app / name / "app.py")
        shutil.copy(ECHO / "memory.py", app / "client" / "memory.py")
        path = Path(temporary) / "echo.json"
        path.write_text(json.dumps({"nodes": NODES, "cases": list(CASES.values())}))
        begun = time.perf_counter()
        run_flower(
            app, nodes=NODES, run_config={"run": str(path)}, log=Path(temporary) / "flower.log"
        )
        whole = time.perf_counter() - begun
        found = json.loads(path.with_suffix(".found.json").read_text())
    rest = sum(sum(each["seconds"]) for each in found[1:])  # the first waits for the imports
    return whole - rest, dict(zip(CASES, found, strict=True))


def imported(module: str) -> int:
    """Peak bytes of a process that imports a module and does nothing."""
    program = f"import {module}; from tests.benchmarks.unit_costs.echo.memory import peak"
    done = subprocess.run(
        [sys.executable, "-c", program + "; print(peak())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


if __name__ == "__main__":
    print(messages())
