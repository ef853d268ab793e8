"""What every Markov kernel here is: `init` and `step`, specialised by closure; the Metropolis test.

The shape is blackjax's (``blackjax.base``), with a source of noise where JAX has a key:

    algorithm = hmc(score_fn, step_size=0.4)
    state = algorithm.init(position, noise)
    state, info = algorithm.step(noise, state)

A *state* is what the next step needs, an *info* what a person needs; both are NamedTuples of
tensors, over a batch of n images that do not know of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sampler.noise import NoiseSource

DIVERGENCE_THRESHOLD = 1000.0  # an energy error beyond this is a divergence, by convention


class SamplingAlgorithm(NamedTuple):
    """A kernel with all of its parameters bound.

    Attributes
    ----------
    init
        (position, noise) -> state; position is (n, C, H, W).
    step
        (noise, state) -> (state, info).
    """

    init: Callable[[torch.Tensor, NoiseSource], Any]
    step: Callable[[NoiseSource, Any], tuple[Any, Any]]


class MetropolisInfo(NamedTuple):
    """What a transition of a Markov chain says, (n,) each but for the last.

    Attributes
    ----------
    acceptance_rate
        Probability that the Metropolis test accepts (also where it is switched off).
    is_accepted
        Whether the image moved.
    is_divergent
        Whether the energy error is beyond `DIVERGENCE_THRESHOLD`.
    delta_energy
        H(end) - H(start); infinite where it is not a number.
    proposal
        (n, C, H, W) where the image was to move.
    """

    acceptance_rate: torch.Tensor
    is_accepted: torch.Tensor
    is_divergent: torch.Tensor
    delta_energy: torch.Tensor
    proposal: torch.Tensor


def metropolis_test(
    proposal: torch.Tensor, delta_energy: torch.Tensor, noise: NoiseSource, *, adjust: bool = True
) -> MetropolisInfo:
    """Accept each image with probability min(1, exp(-delta_energy)).

    Per image: one test of the summed energy of a batch would let good images pay for bad ones.
    Without ``adjust`` all are accepted but those whose energy is not finite.
    """
    finite = torch.isfinite(delta_energy)
    delta_energy = torch.where(finite, delta_energy, torch.inf)
    acceptance_rate = torch.exp(-delta_energy).clamp(max=1.0)
    is_accepted = noise.uniform() <= acceptance_rate if adjust else finite
    is_divergent = delta_energy > DIVERGENCE_THRESHOLD
    return MetropolisInfo(acceptance_rate, is_accepted, is_divergent, delta_energy, proposal)


def choose(is_accepted: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Return, of each image, ``new`` where it is accepted, else ``old``."""
    return torch.where(is_accepted[:, None, None, None], new, old)
