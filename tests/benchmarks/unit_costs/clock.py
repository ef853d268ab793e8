"""Processor seconds of a call, the median of some.

They do not depend on what else the machine does, as the wall clock does; waiting is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

now = time.process_time


def seconds(
    function: Callable[[], object], turns: int = 5, clock: Callable[[], float] = now
) -> float:
    """Return the median seconds of ``turns`` calls, after one that warms up."""
    function()
    return statistics.median(once(function, clock) for _ in range(turns))


def once(function: Callable[[], object], clock: Callable[[], float] = now) -> float:
    """Return the seconds of one call."""
    begun = clock()
    function()
    return clock() - begun
