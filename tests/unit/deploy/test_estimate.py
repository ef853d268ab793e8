"""What a run will take is estimated for every kind of phase."""

from deploy import estimate
from dppm_model.score.phases import PHASES


def test_every_kind_of_phase_has_a_cost() -> None:
    assert estimate._RECORD.keys() == PHASES.keys()
