"""The server's side of an aggregation; see `dppm_model.aggregation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Aggregate:
    """The sum over the sites that survived a round.

    Attributes
    ----------
    total
        (D,) int64, the sum of the tallies.
    sites
        Number of reports in it.
    left_out
        The reasons why other sites' reports are not in it, by name.
    blamed
        Accusations of this round.
    uplink_bytes, downlink_bytes
        Bytes of all sites together.
    """

    total: NDArray[np.int64]
    sites: int
    left_out: dict[str, str]
    blamed: list[str]
    uplink_bytes: int
    downlink_bytes: int


class Aggregation(Protocol):
    """The server's side, for one run."""

    def __init__(
        self, grid: Any, plan: Any, peers: Mapping[str, bytes], path: Path, retry: Any
    ) -> None:
        """Take the way to reach sites, and a path for the state of a round."""

    def aggregate(self, phase: int, round_: int, question: bytes) -> Aggregate:
        """Ask all sites for one round, with these arrays, and return the sum of their reports.

        A repeated call, even in another process, gives the sum of the same reports. Raises
        `TooFewSites` if fewer than the plan's ``min_survivors`` are in it.
        """
