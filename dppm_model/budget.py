"""Spending limits, and the refusal of the first round that would exceed one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from dppm_model.errors import BudgetExhausted
from dppm_model.mechanism.base import View
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.ledger import Debit, costs_of


@dataclass(frozen=True)
class Budget:
    """The limits of a site, or of the server, over all runs, in either view.

    Runs whose server is trusted to add the noise (`Plan.trusts_server`) have a separate limit,
    against anyone who sees only the release; the other limits are over all other runs.
    """

    max_epsilon_secure_sum: float
    max_epsilon_site: float
    delta: float
    max_epsilon_trusted_server: float = 0.0

    @property
    def limits(self) -> dict[View, float]:
        """The limit in each view."""
        return {
            "secure_sum": self.max_epsilon_secure_sum,
            "site": self.max_epsilon_site,
            "release": self.max_epsilon_trusted_server,
        }

    def check(self, plan: Plan, number: int, debits: tuple[Debit, ...], hint: str) -> None:
        """Refuse round ``number`` of a plan if it, with all before it, would pass a limit.

        Of ``debits``, those of other runs count in full, the plan's own rounds as planned. ``hint``
        is the error's.

        Raises
        ------
        BudgetExhausted
            A round that meets the limit exactly still fits.
        """
        others = alike(plan, debits)
        for view in plan.views:
            limit = self.limits[view]
            if number >= affordable_rounds(plan, view, costs_of(others, view), limit, self.delta):
                raise BudgetExhausted(
                    f"round {number + 1} of run {plan.run} would pass the {view} limit of epsilon "
                    f"= {limit}.",
                    hint,
                )


def alike(plan: Plan, debits: tuple[Debit, ...]) -> tuple[Debit, ...]:
    """Return the debits of other runs that share a plan's limits."""
    return tuple(d for d in debits if d.run != plan.run and d.trusts_server == plan.trusts_server)


@lru_cache(maxsize=64)
def affordable_rounds(
    plan: Plan, view: View, spent: tuple[RoundCost, ...], limit: float, delta: float
) -> int:
    """Return how many rounds of ``plan``, in order, still fit into ``limit``."""
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
