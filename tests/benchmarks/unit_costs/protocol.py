"""What sites cost each other: real members and the real server of small sums, without records.

The linear and fixed parts come from runs of three sizes in one process; what grows faster is timed
by itself and taken off first, so that nothing is extrapolated that was not counted.
"""

from __future__ import annotations

import logging
import math
import secrets
import statistics
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message
from flwr.serverapp import ServerApp
from scipy.optimize import nnls

from client.app import create_app
from client.site import Site
from deploy.cost.load import Load
from deploy.cost.seconds import server_seconds, site_seconds
from deploy.cost.traffic import LIST_ITEMS, SEALED
from deploy.cost.units import Kind, Units
from deploy.inprocess import InProcessGrid
from dppm_model.files import write_bytes
from dppm_model.plan import Plan
from dppm_model.score.model_config import ModelConfig
from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import agree, public_of
from dppm_model.securesum.memory import Memory, RoundMemory
from dppm_model.securesum.round_keys import RoundKeys
from server.broadcast import RetryPolicy
from server.securesum.aggregation import SecureSum
from server.securesum.round_checkpoint import RoundCheckpoint
from tests.benchmarks.unit_costs.clock import now, seconds
from tests.benchmarks.unit_costs.coordinates import phase_of
from tests.support.policy_factory import site_folders

SIZES = (8, 40, 120)  # the last large enough to tell what grows with pairs
_ROUNDS, _DIMENSION = 6, 64
_MODEL = ModelConfig.of((1, 8, 8), 2, {"mixture": {"band": 1, "fine_band": math.isqrt(_DIMENSION)}})
logging.getLogger("flwr").setLevel(logging.ERROR)


class TimedGrid(InProcessGrid):
    """Adds up what sites take, and what copying of messages takes."""

    sites = copies = 0.0

    def answer(self, message: Message) -> Message:
        begun = now()
        reply = super().answer(message)
        self.sites += now() - begun
        return reply

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        made, begun = list(messages), now()
        ids = super().push_messages(made)
        self.copies += now() - begun
        return ids


def primitives() -> dict[str, float]:
    """Unit costs of what grows with the square of the number of sites."""
    key, statement = Ed25519PrivateKey.generate(), bytes(64)
    public, signed = key.public_key(), key.sign(statement)
    holders = range(1, 101)
    split = seconds(lambda: shamir.split(bytes(32), holders, 100, bytes(32)))
    one = seconds(lambda: shamir.split(bytes(32), [1], 100, bytes(32)))
    weights = shamir.weights(tuple(holders))
    shares = [dict(zip(holders, [secrets.token_bytes(66)] * 100, strict=True))] * 100

    def combine() -> None:
        for held in shares:  # with the look-ups of `Opening`
            chosen = [h for h in sorted(held) if h != -1]
            shamir.combine({h: held[h] for h in chosen}, weights)

    private, other = secrets.token_bytes(32), public_of(secrets.token_bytes(32))
    return {
        "field": (split - one) / (99 * 99),
        "combine": seconds(combine) / 100**2,
        "weight": seconds(lambda: shamir.weights(tuple(holders))) / 100**2,
        "meet": seconds(lambda: public.verify(signed, statement), 9)
        + seconds(lambda: agree(private, other), 9),
    }


def play(sites: int) -> dict[str, float]:
    """Median seconds of a round: all sites, copying, and the server."""
    phase = replace(phase_of(64, _DIMENSION, sites, _ROUNDS), name="fine_covariance")
    plan = Plan(
        *("units", secrets.token_hex(16), 1e-5, "record", 1, sites, sites, 0, _MODEL, (phase,))
    )
    with tempfile.TemporaryDirectory() as temporary:
        peers = site_folders(Path(temporary), plan)
        with _Pretended():
            return _rounds(plan, peers, Path(temporary))


def _rounds(plan: Plan, peers: dict[str, bytes], folder: Path) -> dict[str, float]:
    grid = TimedGrid(create_app(), plan.sites, {"sites": str(folder)})
    app, times = ServerApp(), defaultdict[str, list[float]](list)

    @app.main()
    def main(_: Any, __: Context) -> None:
        retry = RetryPolicy(600.0, 0, 0.0)
        federation = SecureSum(grid, plan, peers, folder / "exchange", retry)
        for number in range(plan.rounds):
            grid.sites = grid.copies = 0.0
            begun = now()
            federation.aggregate(0, number, b"arrays")
            whole = now() - begun
            if 0 < number < plan.rounds - 1:  # neither the first nor the last is like the others
                times["site"].append(grid.sites / plan.sites)
                times["copies"].append(grid.copies)
                times["server"].append(whole - grid.sites - grid.copies)

    grid.play(app)
    return {name: statistics.median(all_) for name, all_ in times.items()}


class _Pretended:
    """Sites without records: they debit and store reports that are made up."""

    def __enter__(self) -> None:
        def answer(self: Site, plan: Plan, phase: int, round_: int, _: object) -> np.ndarray:
            self.ledger.debit(plan.debit(phase, round_))
            tallies = np.zeros(plan.phases[phase].cells, np.uint8)
            self._store(self.folder / "reports" / plan.run / f"{round_:06d}.npy", tallies)
            return tallies

        self._kept = Site._answer, Site.records
        Site._answer = answer  # type: ignore[assignment,method-assign]
        Site.records = lambda _: ["made up"]  # type: ignore[assignment,method-assign,return-value]

    def __exit__(self, *_: object) -> None:
        Site._answer, Site.records = self._kept  # type: ignore[method-assign]


def protocol(known: Units) -> dict[str, float]:
    """Fixed and linear unit costs, and the server's for a pair; ``known`` has all others."""
    # Here the server neither learns nor accounts.
    asking = replace(
        known, account=0.0, decode=0.0, kinds=dict.fromkeys(known.kinds, Kind(*[0.0] * 4))
    )
    rows, left = [], defaultdict[str, list[float]](list)
    for n in SIZES:
        found = play(n)
        load = Load(phase_of(64, _DIMENSION, n), n, 1, 2000, len(_MODEL), _ROUNDS)
        counted = {
            "site": sum(site_seconds(load, known).values()),
            "server": sum(server_seconds(load, asking).values()),
            "copies": 0.0,
        }
        for name, value in found.items():
            left[name].append(value - counted[name])
        rows.append([1, n, n * n])
    powers = np.array(rows, dtype=float)

    def fit(columns: np.ndarray, name: str) -> np.ndarray:
        """Relative errors count alike, so that small sums tell what is fixed."""
        values = np.maximum(np.array(left[name]), 1e-9)
        return nnls(columns / values[:, None], np.ones(len(values)))[0]

    site, peer = fit(powers[:, :2], "site")
    server, copies = fit(powers, "server"), fit(powers[:, 1:], "copies")
    return {
        "site": site + peer,  # a site has N - 1 peers
        "peer": peer,
        "server": server[0],
        "server_site": server[1],
        "server_pair": server[2],
        "copied_site": copies[0],
        "copied_item": copies[1] / LIST_ITEMS,
    }


def memory(sites: int = 64) -> dict[str, float]:
    """Peak bytes for each peer at a site, and for each pair of sites at the server."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "exchange"

        def materials() -> dict[int, RoundKeys]:
            return {
                i: RoundKeys(
                    secrets.token_bytes(32),
                    secrets.token_bytes(32),
                    {j + 1000: secrets.token_bytes(SEALED) for j in range(sites)},
                )
                for i in range(sites)
            }

        tracemalloc.start()
        now, following = materials(), materials()
        signatures = {i: secrets.token_bytes(64) for i in range(sites)}
        RoundCheckpoint("plan", 0, now, signatures, np.zeros(1, np.uint8)).write(path)
        server = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        size = path.stat().st_size  # safetensors' own copy is not Python's memory
        tracemalloc.start()
        group = Group("r", "p", (bytes(32),), 1)
        Memory.open(path.with_name("m"), group)
        memory = Memory(group.digest.hex(), "0" * 64)
        for i in range(sites):
            memory.peers[i + 1000], memory.agreed[i + 1000] = "0" * 63 + "1", "0" * 64
        for number in (0, 1):
            memory.rounds[number] = RoundMemory("0" * 64)
            for i in range(sites):
                memory.rounds[number].mask_keys[i + 1000] = secrets.token_hex(32)
                memory.rounds[number].shares[i + 1000] = secrets.token_hex(132)
        memory.save(path.with_name("m"))
        site = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del following
        write_bytes(path, b"")
    return {"peer_bytes": site / sites, "pair_bytes": (server + size) / sites**2}


if __name__ == "__main__":
    print(primitives())
    for n in SIZES:
        print(n, play(n))
    print(memory())
