"""One secure sum, beside Flower's own SecAgg+ and a plain sum of the same vectors.

    python -m tests.benchmarks.secure_sum --cases 10x65536 50x65536    # sites x coordinates

All three run in one process, on one thread, over the same in-process grid, with every site's and
the server's work in the figure. Ours is the second of two rounds (its two messages a site; the
first also holds the set-up, which is shown apart), with all that a site writes to disk. SecAgg+
does its set-up in every round, in four messages. At 10 % drop-outs the sites that drop out do so
with their report.
"""

from __future__ import annotations

import logging
import math
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat
from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import (
    MAIN_CONFIGS_RECORD,
    MAIN_PARAMS_RECORD,
    Key,
)
from flwr.serverapp import ServerApp

from client.app import create_app
from client.site import Site
from dppm_model.aggregation import SECURE_SUM, honest_reports
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.score.model_config import ModelConfig
from server.broadcast import RetryPolicy
from server.securesum.aggregation import SecureSum
from tests.benchmarks.runner import benchmark, timed
from tests.support.flaky_grid import FlakyGrid
from tests.support.policy_factory import site_folders

CASES = [f"{sites}x{1 << bits}" for bits in (16, 20) for sites in (10, 50, 100)]
RESPONSES = 64
QUESTION = b"arrays"  # nobody reads them here
logging.getLogger("flwr").setLevel(logging.ERROR)


def vector(site: int, dimension: int) -> np.ndarray:
    """The tallies of one site."""
    return np.random.default_rng(site).integers(0, RESPONSES + 1, dimension).astype(np.uint8)


def expected(sites: range, dimension: int) -> np.ndarray:
    """The plain sum."""
    total = np.zeros(dimension, np.int64)
    for site in sites:
        total += vector(site, dimension)
    return total


def plan_of(sites: int, dimension: int) -> Plan:
    """Two rounds of one phase."""
    least = sites - sites // 5
    honest = honest_reports(SECURE_SUM, sites, least, 0)
    side = math.isqrt(dimension)  # as many coordinates as a phase of this kind asks for
    model = ModelConfig.of((1, 64, 64), 2, {"mixture": {"band": side, "axes": 1}})
    phase = PhasePlan(
        name="pooled_covariance",
        mechanism=BinomialMechanism(1.0, 0.05, RESPONSES),
        clip_norm=1.0,
        sampling_rate=1.0,
        rounds=2,
        dimension=dimension,
        sites=sites,
        honest_sites=honest,
        records=1000,
        tail=1e-26,
    )
    return Plan(
        *(
            "benchmark",
            secrets.token_hex(16),
            1e-5,
            "record",
            1,
            sites,
            least,
            0,
            SECURE_SUM,
            model,
            (phase,),
        )
    )


def ours(sites: int, dimension: int, dropouts: int) -> dict[str, float]:
    """Our secure sum, with real site folders and the server's own code."""
    plan = plan_of(sites, dimension)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peers = site_folders(folder, plan)

        def answer(self: Site, *_: object) -> np.ndarray:
            return vector(int(self.folder.name), dimension)

        Site.answer, kept = answer, Site.answer  # type: ignore[assignment,method-assign]
        # There are no records: vectors are made up.
        Site.records, read = lambda _: ["made up"], Site.records  # type: ignore[assignment,method-assign,return-value]
        last = range(sites - dropouts, sites)
        grid = FlakyGrid(
            create_app(),
            sites,
            {"sites": str(folder)},
            lost=lambda site, kind, _: kind == "train" and site in last and second,
        )
        second = False
        app, figures = ServerApp(), {}

        @app.main()
        def main(grid: Any, _: Context) -> None:
            nonlocal second
            patience = RetryPolicy(600.0, 0, 0.0)
            federation = SecureSum(grid, plan, peers, folder / "exchange", patience)
            first, _total = timed(lambda: federation.aggregate(0, 0, QUESTION))
            second = True
            seconds, collected = timed(lambda: federation.aggregate(0, 1, QUESTION))
            np.testing.assert_array_equal(
                collected.total, expected(range(sites - dropouts), dimension)
            )
            figures.update(
                seconds=seconds,
                with_setup=first,
                up=collected.uplink_bytes / sites,
                down=collected.downlink_bytes / sites,
            )

        try:
            grid.play(app)
        finally:
            Site.answer, Site.records = kept, read  # type: ignore[method-assign]
    return figures


def plain(sites: int, dimension: int) -> dict[str, float]:
    """The same messages without any mask: one a site."""
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        tallies = vector(int(context.node_config["partition-id"]), dimension)
        return Message(RecordDict({"r": ArrayRecord({"t": Array(tallies)})}), reply_to=message)

    grid = FlakyGrid(app, sites, {})
    server, figures = ServerApp(), {"up": float(dimension)}

    @server.main()
    def main(grid: Any, _: Context) -> None:
        def add() -> None:
            total = np.zeros(dimension, np.int64)
            for node in grid.get_node_ids():
                content = RecordDict({"q": ConfigRecord({"round": 0})})
                message = Message(content, dst_node_id=node, message_type="train")
                for reply in grid.send_and_receive([message]):
                    total += reply.content.array_records["r"]["t"].numpy()

        figures["seconds"], _none = timed(add)

    grid.play(server)
    return figures


class Proxy:
    """What `SecAggPlusWorkflow` needs of a client proxy."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id


class Strategy:
    """What it needs of a strategy: everybody takes part; keep the weighted mean."""

    def __init__(self, nodes: list[int]) -> None:
        self.nodes, self.mean = nodes, np.zeros(0)

    def configure_fit(self, _round: int, parameters: Any, _manager: Any) -> list[Any]:
        return [(Proxy(node), FitIns(parameters, {})) for node in self.nodes]

    def aggregate_fit(self, _round: int, results: list[Any], _failures: Any) -> tuple[Any, dict]:  # type: ignore[type-arg]
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return results[0][1].parameters, {}


class Clients:
    """What it needs of a client manager."""

    def num_available(self) -> int:
        """Not looked at."""
        return 0


def secaggplus(sites: int, dimension: int, dropouts: int) -> dict[str, float]:
    """Flower's built-in protocol; every site shares with every other."""

    class Client(NumPyClient):
        def __init__(self, site: int) -> None:
            self.site = site

        def fit(self, *_: object) -> Any:
            return [vector(self.site, dimension).astype(np.float32)], 1, {}

    def client(context: Context) -> Any:
        return Client(int(context.node_config["partition-id"])).to_client()

    sizes = {"up": 0}
    last = range(sites - dropouts, sites)
    stage = {"now": 0}

    def seen(_: int, reply: Message) -> None:
        if reply.has_error():
            raise RuntimeError(reply.error.reason)
        for entry in reply.content.config_records.values():
            for value in entry.values():
                for item in value if isinstance(value, list) else [value]:
                    sizes["up"] += len(item) if isinstance(item, bytes) else 8

    grid = FlakyGrid(
        ClientApp(client_fn=client, mods=[secaggplus_mod]),
        sites,
        {},
        lost=lambda site, *_: stage["now"] == 2 and site in last,
        seen=seen,
    )
    server, found = ServerApp(), {}

    @server.main()
    def main(grid: Any, context: Context) -> None:
        strategy = Strategy(grid.get_node_ids())
        legacy = LegacyContext(context, strategy=strategy, client_manager=Clients())  # type: ignore[arg-type]
        legacy.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
        start = ndarrays_to_parameters([np.zeros(1, np.float32)])
        legacy.state.array_records[MAIN_PARAMS_RECORD] = (
            recorddict_compat.parameters_to_arrayrecord(start, keep_input=True)
        )
        workflow = SecAggPlusWorkflow(
            1.0,
            0.5,
            max_weight=1.0,
            clipping_range=float(RESPONSES),
            quantization_range=2 * RESPONSES,
        )
        steps = ("setup_stage", "share_keys_stage", "collect_masked_vectors_stage", "unmask_stage")
        for i, name in enumerate(steps):
            whole = getattr(workflow, name)

            def step(*args: Any, number: int = i, whole: Any = whole) -> bool:
                stage["now"] = number
                return bool(whole(*args))

            setattr(workflow, name, step)
        seconds, _ = timed(lambda: workflow(grid, legacy))
        survivors = sites - dropouts
        np.testing.assert_array_equal(
            np.rint(strategy.mean * survivors), expected(range(survivors), dimension)
        )
        found.update(seconds=seconds, up=sizes["up"] / sites)

    grid.play(server)
    return found


def measure(cases: Sequence[str] = CASES) -> dict[str, Any]:
    """Run the cases."""
    rows = []
    for sites, dimension in (map(int, case.split("x")) for case in cases):
        for dropouts in (0, sites // 10):
            row = {
                "sites": sites,
                "dimension": dimension,
                "dropouts": dropouts,
                "plain": plain(sites, dimension),
                "ours": ours(sites, dimension, dropouts),
                "secaggplus": secaggplus(sites, dimension, dropouts),
            }
            rows.append(row)
            mine, theirs = row["ours"], row["secaggplus"]
            print(
                f"N = {sites:3d}, D = {dimension:7d}, {dropouts:2d} drop out: ours "
                f"{mine['seconds']:.2f} s (with set-up {mine['with_setup']:.2f} s), SecAgg+ "
                f"{theirs['seconds'] / mine['seconds']:.1f} x, plain "
                f"{row['plain']['seconds'] / mine['seconds']:.3f} x; up a site ours "
                f"{mine['up'] / 1e6:.3f} MB, SecAgg+ {theirs['up'] / mine['up']:.1f} x; down ours "
                f"{mine['down'] / 1e3:.0f} kB"
            )
    return {"responses": RESPONSES, "cases": rows}


if __name__ == "__main__":
    benchmark(measure)
