"""Whether records can pay for private rounds of a network that public images taught.

A gradient of D numbers comes back with noise of norm sqrt(D)/(mu N) beside records' clipped
gradients of norm 1, over all rounds together. Rounds pay where the signal is a few times that;
below it, the closed form has more use for the budget, and the network stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LEAST_SIGNAL = 4.0  # mu N / sqrt(D); see the module, and docs/results.md
_FRACTION = 1.0  # of mu², beside the closed form's, which is one as well
_SHARE = _FRACTION / (1 + _FRACTION)
_ROUNDS = 80
_SAMPLED, _RATES = 900, (0.02, 0.25)  # units of a round, about, within limits of the rate
_ALIGNMENT = 0.5  # |sum of a site's gradients| / (their number · C), on the safe side


@dataclass(frozen=True)
class FineTuning:
    """A choice, and why it was made.

    Attributes
    ----------
    phase
        Of ``model.phases.fine_tuning``: budget_fraction beside the closed form's one, rounds,
        sampling_rate, sum_alignment. Empty if the phase does not pay.
    reason
        A sentence for people.
    """

    phase: dict[str, float]
    reason: str


def choose_fine_tuning(units: int, mu: float, dimension: int) -> FineTuning:
    """Choose the private rounds of a network of which they train ``dimension`` numbers.

    ``mu`` is that of the whole run.
    """
    signal = mu * math.sqrt(_SHARE) * units / math.sqrt(dimension)
    if signal < _LEAST_SIGNAL:
        enough = math.ceil(units * _LEAST_SIGNAL / signal)
        return FineTuning(
            {},
            f"The network stays as public images taught it: the noise in {dimension:,} of its "
            f"weights would hide what {units:,} units say of them; {enough:,} would be enough.",
        )
    rate = min(max(_SAMPLED / units, _RATES[0]), _RATES[1])
    phase = {
        "budget_fraction": _FRACTION,
        "rounds": _ROUNDS,
        "sampling_rate": rate,
        "sum_alignment": _ALIGNMENT,
    }
    return FineTuning(
        phase,
        f"{dimension:,} weights of the network are trained on for {_ROUNDS} rounds, with "
        f"{_SHARE:.0%} of the budget: what {units:,} units say of them is {signal:.2g} times the "
        "noise.",
    )
