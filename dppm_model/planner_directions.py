"""The plan of a phase whose records name directions: how many directions, and how much truth."""

from __future__ import annotations

import math
from collections.abc import Callable

from dppm_model.errors import ConfigError
from dppm_model.mechanism.directions import DirectionsResponse, alignment
from dppm_model.mechanism.rotation import Rotation
from dppm_model.phase import PhasePlan, View
from dppm_model.requests import PhaseRequest, PrivacyRequest, phase_plan

_MOST_TRUTH = 0.999
_LEAST_TRUTH = 1e-7  # below, a record's answer is lost in the rounding of its probability


def choose_directions(
    request: PhaseRequest, privacy: PrivacyRequest, mu: float, tau: float
) -> PhasePlan:
    """Choose K and theta so that a round costs at most ``mu``, sampling included.

    Raises
    ------
    ConfigError
        If ``mechanism.directions`` is more than two a dimension, or mu so small that nothing could
        be told.
    """
    rotation = Rotation.of(request.dimension)
    slots = privacy.mechanism.slots or -(-privacy.records // privacy.sites)
    seen = slots * (privacy.honest_sites if privacy.view == "secure_sum" else 1)
    most = (2 * rotation.padded).bit_length() - 1

    def error(directions: int) -> float:
        """Expected energy of noise and of naming one direction only, over C^2."""
        theta = min(mu * math.sqrt(seen / (directions - 1)) / request.sampling_rate, _MOST_TRUTH)
        batch = request.sampling_rate * privacy.records
        noise = slots * privacy.sites / theta**2
        naming = batch / theta + (request.sum_alignment * batch) ** 2
        return (noise + naming) / alignment(directions // 2, rotation.padded) ** 2

    directions = privacy.mechanism.directions
    if directions is None:
        directions = min((1 << b for b in range(1, most + 1)), key=error)
    elif directions > 2 * rotation.padded:
        raise ConfigError(
            f"mechanism.directions is {directions}, phase {request.name} has "
            f"{rotation.padded} dimensions.",
            "Give at most two a dimension, or null.",
        )
    return _most_truthful(
        lambda theta: phase_plan(
            request, privacy, DirectionsResponse(directions, theta, slots), tau
        ),
        privacy.view,
        mu,
    )


def _most_truthful(phase: Callable[[float], PhasePlan], view: View, mu: float) -> PhasePlan:
    """Find the largest theta that costs at most ``mu``, to a thousandth, by bisection."""
    low, high = _LEAST_TRUTH, _MOST_TRUTH
    if phase(low).cost(view, 1).mu > mu:
        raise ConfigError(
            f"phase {phase(low).name} could tell the truth with probability {low:g} at most.",
            "Raise privacy.epsilon or the phase's budget_fraction, or lower its rounds.",
        )
    if phase(high).cost(view, 1).mu <= mu:
        return phase(high)
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if phase(middle).cost(view, 1).mu <= mu else (low, middle)
    return phase(low)
