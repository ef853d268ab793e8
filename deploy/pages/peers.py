"""Other methods' accuracy at the same epsilon, from peers.yaml."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

_PEERS = Path(__file__).with_suffix(".yaml")
_NEAR = 1.05  # epsilons count as equal if they differ by no more than this factor


@dataclass(frozen=True)
class Peer:
    """Another method's accuracy, the party that it trusts with the records, and who measured it."""

    method: str
    trust: str
    measured_by: str
    epsilon: float
    accuracy: float


def peers_of(data: str, epsilon: float) -> list[Peer]:
    """Return other methods on a data set at an epsilon within 5 %, the best first."""
    table = yaml.safe_load(_PEERS.read_text())
    found = [
        Peer(entry["method"], entry["trust"], by, float(at), accuracy)
        for group, by in (("published", "DPImageBench"), ("ours", "this project"))
        for entry in table[group]
        for at, accuracy in entry.get(data, {}).items()
        if abs(math.log(at / epsilon)) <= math.log(_NEAR)
    ]
    return sorted(found, key=lambda p: -p.accuracy)
