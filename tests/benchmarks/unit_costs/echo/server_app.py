"""A server that asks for nothing but bytes, and times its rounds.

Stands where ``server/app.py`` does in a staged app, see
`tests.benchmarks.unit_costs.messages`. The run config's ``run`` is a JSON file with the cases, a
list of {nodes, work, down, up, items, rounds}; the seconds of their rounds, and the memory of a
site and of the server, are written beside it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from client.memory import peak
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.broadcast import Broadcaster, RetryPolicy, connected

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask all nodes, case by case and round by round."""
    path = Path(str(context.run_config["run"]))
    plan = json.loads(path.read_text())
    nodes = dict(enumerate(connected(grid, plan["nodes"], plan["nodes"], 120.0)))
    asker, found = Broadcaster(grid, RetryPolicy(600.0, 0, 0.0)), []
    for case in plan["cases"]:
        asked = {site: nodes[site] for site in range(case["nodes"])}
        rounds = [_round(asker, asked, case) for _ in range(case["rounds"])]
        seconds, memory = zip(*rounds, strict=True)
        found.append({"seconds": seconds, "site": max(memory), "server": peak()})
    path.with_suffix(".found.json").write_text(json.dumps(found))


def _round(asker: Broadcaster, nodes: dict[int, int], case: dict[str, int]) -> tuple[float, int]:
    begun, n = time.perf_counter(), case["items"]
    memory: list[int] = []
    question: dict[str, int | bytes] = {key: case[key] for key in ("work", "up", "items")}
    question["model"] = bytes(case["down"])
    asker.ask(
        "query.echo",
        nodes,
        lambda site: {
            "question": question,
            "participants": {"shares": [site.to_bytes(148)] * n, "sites": list(range(n))},
        },
        lambda _, records: memory.append(int(records["answer"]["memory"])),  # type: ignore[arg-type]
        lambda: len(memory) == len(nodes),
        lambda: "the echo",
    )
    return time.perf_counter() - begun, max(memory)
