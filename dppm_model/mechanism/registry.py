"""All mechanisms, by the names that plans, ``conf/mechanism/`` and ``site.toml`` call them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dppm_model.mechanism.base import Mechanism, Planner
from dppm_model.mechanism.binomial import BinomialPlanner
from dppm_model.mechanism.directions import DirectionsPlanner

AnyPlanner = Annotated[BinomialPlanner | DirectionsPlanner, Field(discriminator="name")]
PLANNERS: dict[str, type[Planner]] = {
    planner.mechanism.name: planner for planner in (BinomialPlanner, DirectionsPlanner)
}
MECHANISMS: dict[str, type[Mechanism]] = {name: p.mechanism for name, p in PLANNERS.items()}
