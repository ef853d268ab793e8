"""Expected seconds of a round, from unit costs measured on two cores of a laptop-class machine."""

from __future__ import annotations

from dppm_model.phase import PhasePlan
from dppm_model.score.phases import kind_of

# Measured by tests/benchmarks/round.py; a plan needs the order of magnitude, not the last digit.
_MESSAGE = 0.2  # one question and one report through Flower's simulation
_RECORD = {
    "means": 3.0e-5,
    "covariance": 2.0e-4,
    "components": 2.0e-5,
    "spread": 6.0e-5,
    "pooled": 5.0e-5,
    "score": 1.5e-3,
    "detail": 7.0e-3,
}
_COORDINATE = 5.0e-7  # rotate and answer, per coordinate, for up to m = 4000
_VECTOR = 1.2e-9  # to form and average a record's vector, per coordinate, where persons answer
_CORES = 2


def round_seconds(p: PhasePlan, records_per_person: int) -> float:
    """Estimate one round of a phase, all sites played by two cores, from above for persons."""
    each = _RECORD[kind_of(p.name)] + (records_per_person > 1) * _VECTOR * p.dimension
    records = p.divisor * records_per_person * each
    coins = p.sites * p.rotation.padded * _COORDINATE * max(1.0, p.response.most / 4000)
    return (records + coins + p.sites * _MESSAGE) / _CORES
