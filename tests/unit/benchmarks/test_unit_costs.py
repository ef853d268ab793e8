"""The unit costs in the package are those that the benchmark measured and recorded."""

import json
from dataclasses import asdict, fields

import pytest

from deploy.cost.units import LAPTOP, Units
from tests.benchmarks.record import RESULTS

TOLD = ("machine", "kinds")


def recorded() -> dict[str, object]:
    figures: dict[str, object] = json.loads((RESULTS / "unit_costs.json").read_text())["figures"]
    return figures


def test_all_figures_are_the_recorded_ones() -> None:
    figures, own = recorded(), asdict(LAPTOP)
    assert figures.keys() == {f.name for f in fields(Units)}
    for name in figures.keys() - set(TOLD):
        assert own[name] == pytest.approx(figures[name], rel=0.05), name
    assert LAPTOP.machine == figures["machine"]


def test_all_kinds_that_the_benchmark_can_time_are_the_recorded_ones() -> None:
    kinds = recorded()["kinds"]
    assert isinstance(kinds, dict) and kinds.keys() == LAPTOP.kinds.keys()
    for name, kind in kinds.items():
        assert LAPTOP.kinds[name]._asdict() == pytest.approx(kind, rel=0.05, abs=1e-9), name
