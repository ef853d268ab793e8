"""Measure all unit costs of `deploy.cost.units` on this machine, and print `LAPTOP` anew.

    python -m tests.benchmarks.unit_costs [OVERRIDE]...

The phases are those of the configuration's plan (with ``model=residual`` all that MNIST has). Takes
one or two minutes, and wants the machine for itself: ``parallel``, ``start`` and what messages cost
are of the wall clock.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from deploy import simulate as simulation
from tests.benchmarks.record import record
from tests.benchmarks.unit_costs.calibrate import calibrate


def main() -> None:
    """Measure, print, record."""
    config = simulation.resolve(sys.argv[1:])
    units = asdict(calibrate(simulation.plan_of(config, "units"), config))
    units["kinds"] = {name: kind._asdict() for name, kind in units["kinds"].items()}
    for name, value in units.items():
        print(f"    {name}={_code(value)},")
    record("unit_costs", units)


def _code(value: Any) -> str:
    """Write a value as Python, numbers in three digits."""
    if isinstance(value, dict):
        kinds = [
            f'        "{k}": Kind({", ".join(map(_code, v.values()))}),' for k, v in value.items()
        ]
        return "\n".join(["{", *kinds, "    }"])
    return repr(float(f"{value:.3g}")) if isinstance(value, float) else repr(value)


if __name__ == "__main__":
    main()
