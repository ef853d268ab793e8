"""The weights of a network as one vector, and memory that holds nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ModelError


def zeroed(network: nn.Module) -> nn.Module:
    """Give a network of the meta device memory, all zeros.

    Freed memory, perhaps of another record, must not become a weight: a model without weights
    would then make answers depend on more than the record and the model.

    Raises
    ------
    ModelError
        If the network has buffers, which nothing would fill.
    """
    if buffers := [name for name, _ in network.named_buffers()]:
        raise ModelError(
            f"The network has a buffer, {buffers[0]!r}.",
            "Compute constants in `forward`; what is learned stands in the parameters of layers.",
        )
    network = network.to_empty(device=torch.get_default_device())
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    return network


def set_weights(parameters: Iterable[nn.Parameter], weights: NDArray[np.float32]) -> None:
    """Set parameters from one vector (d,) of them all, flattened, in their order."""
    own = list(parameters)
    # Copied, so that each begins at a cache line of its own (`mechanism.products`).
    values = torch.split(torch.tensor(weights), [p.numel() for p in own])
    with torch.no_grad():
        for p, value in zip(own, values, strict=True):
            p.copy_(value.view_as(p))
