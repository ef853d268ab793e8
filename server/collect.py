"""Collect one round's reports and add them up as they arrive; no report is kept.

Today the sum is plain: the server sees each report for a moment. The masks of the secure sum go
here; nothing outside this file depends on how the total was obtained.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from dppm_model.errors import FederationError
from dppm_model.plan import Plan

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Collected:
    """The sum over the sites that answered.

    Attributes
    ----------
    total
        (D,) int64, the sum of the tallies.
    sites
        How many reports are in it.
    uplink_bytes
        Bytes of all reports together.
    """

    total: NDArray[np.int64]
    sites: int
    uplink_bytes: int


def wait_for_sites(grid: Grid, sites: int, timeout: float) -> list[int]:
    """Wait until ``sites`` nodes are connected and return their ids.

    Raises
    ------
    FederationError
        If fewer come before ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < sites:
        if time.monotonic() > deadline:
            raise FederationError(
                f"{len(nodes)} of {sites} sites are connected after {timeout:.0f} s.",
                "Start the missing sites, or plan for fewer (sites=…).",
            )
        time.sleep(0.2)
    return nodes[:sites]


def collect(
    grid: Grid,
    nodes: list[int],
    plan: Plan,
    phase: int,
    round_: int,
    model: bytes,
    timeout: float,
) -> Collected:
    """Ask every node for its report of one round and sum what comes before the deadline.

    Raises
    ------
    FederationError
        If fewer than ``plan.min_survivors`` sites reported: their sum would hold less noise than
        was accounted, so it is not used.
    """

    def question() -> ConfigRecord:
        return ConfigRecord(
            {"plan": plan.to_json(), "phase": phase, "round": round_, "model": model}
        )

    messages = [
        Message(
            RecordDict({"question": question()}),
            dst_node_id=node,
            message_type="train",
            group_id=f"{plan.phases[phase].name}-{round_}",
        )
        for node in nodes
    ]
    pending = set(grid.push_messages(messages))
    total = np.zeros(plan.phases[phase].rotation.padded, dtype=np.int64)
    sites, size, failures = 0, 0, Counter[str]()
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        for reply in grid.pull_messages(pending):
            pending.discard(str(reply.metadata.reply_to_message_id))
            tallies, failure = read_report(reply, plan, phase)
            if tallies is None:
                failures[failure] += 1
                continue
            total += tallies
            sites += 1
            size += tallies.nbytes
        if pending:
            time.sleep(_POLL_SECONDS)
    if pending:
        failures["no answer in time"] += len(pending)
    if sites < plan.min_survivors:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in failures.items())
        raise FederationError(
            f"{sites} of {len(nodes)} sites reported in round {round_} of phase "
            f"{plan.phases[phase].name}, the plan needs {plan.min_survivors} ({reasons}).",
            "Bring the sites back and run the same command again; nothing was spent twice.",
        )
    return Collected(total, sites, size)


def read_report(
    reply: Message, plan: Plan, phase: int
) -> tuple[NDArray[np.unsignedinteger] | None, str]:
    """Return the tallies of a reply, or None and why they do not count."""
    p = plan.phases[phase]
    if reply.has_error():
        return None, f"Flower error {reply.error.code} ({str(reply.error.reason)[:200]})"
    if "refusal" in reply.content.config_records:
        return None, f"refused: {reply.content.config_records['refusal']['error']!s}"
    if "report" not in reply.content.array_records:
        return None, "reply without a report"
    tallies = reply.content.array_records["report"]["tallies"].numpy()
    if (
        tallies.shape != (p.rotation.padded,)
        or tallies.dtype.kind != "u"
        or int(tallies.max()) > p.responses
    ):
        return None, "report of another plan"
    return tallies, ""
