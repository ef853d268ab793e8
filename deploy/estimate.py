"""Expected seconds of a round, from unit costs measured on two cores of a laptop-class machine."""

from __future__ import annotations

from dppm_model.plan import PhasePlan

# Measured by tests/benchmarks; a plan needs the order of magnitude, not the last digit.
_MESSAGE = 0.03  # one question and one report through Flower's simulation
_RECORD = {"score": 1.0e-3}  # a per-record gradient; sums of moments cost far less
_MOMENT = 2.0e-5
_COORDINATE = 3.0e-7  # rotate and answer, per coordinate, at m = 64
_CORES = 2


def round_seconds(p: PhasePlan) -> float:
    """Estimate one round of a phase, all sites played by two cores."""
    records = p.divisor * _RECORD.get(p.name, _MOMENT)
    coins = p.sites * p.rotation.padded * _COORDINATE * max(1.0, p.responses / 1000)
    return (records + coins + p.sites * _MESSAGE) / _CORES
