"""The planners of all mechanisms, by the names that ``conf/mechanism/`` calls them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from dppm_model.mechanism.base import Mechanism
from dppm_model.planning.base import Audit, Planner
from dppm_model.planning.binomial import BinomialPlanner
from dppm_model.planning.directions import DirectionsPlanner
from dppm_model.planning.gaussian import GaussianPlanner

AnyPlanner = Annotated[
    BinomialPlanner | DirectionsPlanner | GaussianPlanner, Field(discriminator="name")
]
PLANNERS: dict[str, type[Planner]] = {
    planner.mechanism.name: planner
    for planner in (BinomialPlanner, DirectionsPlanner, GaussianPlanner)
}


def audit_of(mechanism: Mechanism) -> Audit[Any]:
    """Return the auditor's games with a mechanism."""
    return PLANNERS[mechanism.name].audit
