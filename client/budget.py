"""How many rounds of a plan a limit can pay for."""

from __future__ import annotations

import math
from functools import lru_cache

from dppm_model.phase import View
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import RoundCost, epsilon


@lru_cache(maxsize=64)
def affordable_rounds(
    plan: Plan, view: View, spent: tuple[RoundCost, ...], limit: float, delta: float
) -> int:
    """Return how many rounds of ``plan``, in order, fit into ``limit`` after what was spent."""
    high = plan.rounds
    if math.isinf(limit) or epsilon((*spent, *plan.costs(view)), delta) <= limit:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon((*spent, *plan.costs(view, middle)), delta) <= limit:
            low = middle
        else:
            high = middle
    return low
