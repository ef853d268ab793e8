"""Plain summation, for tests: a second aggregation, which hides no report from the server.

One message a round, and no help for sites that drop out. `registered` adds its three faces to the
product's tables; without that no plan that names it can be read, and so none be approved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from flwr.serverapp import Grid

import client.app
import server.app
from client.site import Site
from dppm_model import aggregation
from dppm_model.aggregation import Answer, Question
from dppm_model.plan import Plan
from server.aggregation import Aggregate
from server.broadcast import Broadcaster, Records, RetryPolicy

NAME = "plain"


def honest_reports(sites: int, min_survivors: int, colluding: int) -> int:
    """One: the server sees each report by itself."""
    return 1


class PlainSite:
    """A site sends its tallies as they are."""

    messages: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(self, site: Site, plan: Plan) -> None:
        self.site, self.plan = site, plan

    def handle(self, message: str, content: Question) -> Answer:
        question = content["question"]
        with self.site.alone():
            self.site.authorize(self.plan)
            arrays = (question[name] for name in ("phase", "round", "arrays"))
            tallies = self.site.answer(self.plan, *arrays)
        return {"report": {"tallies": tallies.astype("<i8").tobytes()}}


class PlainSum:
    """The server adds them up."""

    def __init__(
        self, grid: Grid, plan: Plan, peers: Mapping[str, bytes], path: Path, retry: RetryPolicy
    ) -> None:
        self.grid, self.plan = grid, plan
        self.broadcaster = Broadcaster(grid, retry)

    def aggregate(self, phase: int, round_: int, question: bytes) -> Aggregate:
        nodes, reports = list(self.grid.get_node_ids()), dict[int, np.ndarray]()
        numbers = {"phase": phase, "round": round_}
        fields = {"plan": self.plan.to_json(), "arrays": question, **numbers}

        def read(node: int, records: Records) -> None:
            content = records["report"]["tallies"]
            assert isinstance(content, bytes)
            reports[node] = np.frombuffer(content, "<i8")

        reasons = self.broadcaster.ask(
            "train",
            {node: node for node in nodes},
            lambda _: {"question": fields},
            read,
            lambda: len(reports) >= self.plan.min_survivors,
            lambda: f"round {round_}",
        )
        up, down = self.broadcaster.up, self.broadcaster.down
        left_out = {f"node {node}": why for node, why in reasons.items()}
        total = np.sum(list(reports.values()), axis=0)
        return Aggregate(total, len(reports), left_out, [], up, down)


@contextmanager
def registered() -> Iterator[None]:
    """Let plans name this aggregation, for the length of a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(aggregation.HONEST_REPORTS, NAME, honest_reports)
        patch.setitem(client.app.AGGREGATIONS, NAME, PlainSite)
        patch.setitem(server.app.AGGREGATIONS, NAME, PlainSum)
        yield
