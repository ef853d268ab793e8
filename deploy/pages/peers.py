"""Other methods' accuracy at the same epsilon, for the few data sets and budgets it is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

_TABLE = Path(__file__).parent / "peers.yaml"
_NEAR = 1.05  # epsilons are equal when they differ by no more than this factor


@dataclass(frozen=True)
class Peer:
    """One figure: who, whom one must trust with the records, and who measured it."""

    method: str
    trust: str
    measured_by: str
    epsilon: float
    accuracy: float


def peers_of(data: str, epsilon: float) -> list[Peer]:
    """Return the peers on a data set at an epsilon within 5 %, the best first."""
    found = [p for p in _all(data) if abs(math.log(p.epsilon / epsilon)) <= math.log(_NEAR)]
    return sorted(found, key=lambda p: -p.accuracy)


def _all(data: str) -> Iterator[Peer]:
    table = yaml.safe_load(_TABLE.read_text())
    for group, by in (("published", "DPImageBench"), ("ours", "this project")):
        for entry in table[group]:
            for epsilon, accuracy in entry.get(data, {}).items():
                yield Peer(entry["method"], entry["trust"], by, float(epsilon), accuracy)
