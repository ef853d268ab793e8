"""The server's face of an aggregation; see `dppm_model.aggregation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Aggregate:
    """The sum over the sites that survived a round."""

    total: NDArray[np.int64]  # (D,) int64, the sum of the tallies
    sites: int  # number of reports in it
    left_out: dict[str, str]  # the reasons why other sites are not in it, by name
    blamed: list[str]  # accusations of this round
    # bytes of all sites together
    uplink_bytes: int
    downlink_bytes: int


class Aggregation(Protocol):
    """The server's face, for one run."""

    def __init__(
        self, grid: Any, plan: Any, peers: Mapping[str, bytes], path: Path, retry: Any
    ) -> None:
        """Take how sites are reached, and where a round's state may be kept."""

    def aggregate(self, phase: int, round_: int, question: bytes) -> Aggregate:
        """Ask all sites for one round, with these arrays, and return the sum of their reports.

        Asked again, also by another process, it is the sum of the same reports.

        Raises TooFewSites if fewer than the plan's ``min_survivors`` are in it.
        """
