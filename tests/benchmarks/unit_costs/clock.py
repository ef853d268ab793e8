"""Seconds of a call: the median of some."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object], turns: int = 5) -> float:
    """Return the median seconds of ``turns`` calls, after one that warms up."""
    function()
    return statistics.median(once(function) for _ in range(turns))


def once(function: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun
