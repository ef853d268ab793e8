"""Measure all unit costs of `deploy.cost.units` on this machine.

    python -m tests.benchmarks.unit_costs [OVERRIDE]...

The phases are those of the configuration's plan; MNIST's recipe if nothing is overridden. Takes one
or two minutes, and wants the machine for itself.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from deploy import simulate as simulation
from tests.benchmarks.record import record
from tests.benchmarks.unit_costs.calibrate import calibrate


def main() -> None:
    """Measure, print, record."""
    config = simulation.resolve(sys.argv[1:])
    units = asdict(calibrate(simulation.plan_of(config, "units"), config))
    units["kinds"] = {name: kind._asdict() for name, kind in units["kinds"].items()}
    for name, value in units.items():
        print(name, value if not isinstance(value, float) else f"{value:.3g}")
    record("unit_costs", units)


if __name__ == "__main__":
    main()
