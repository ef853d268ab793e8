"""All mechanisms that a plan may name. The list is closed: plans come from others."""

from __future__ import annotations

from dppm_model.mechanism.base import Mechanism
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.directions import DirectionsMechanism
from dppm_model.mechanism.gaussian import GaussianMechanism

MECHANISMS: dict[str, type[Mechanism]] = {
    mechanism.name: mechanism
    for mechanism in (BinomialMechanism, DirectionsMechanism, GaussianMechanism)
}
