"""Gradient questions: private gradient steps of any network.

A record answers the gradient of its own loss, scaled so that the plan's clip norm is 1. The scale
is public (`dppm_model.training.gradient`). The server passes the noisy mean gradient to Adam.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.gradients import (
    CHUNK,
    Losses,
    clipped_sum,
    per_record,
    trainable,
)
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.arrays import array_specs
from dppm_model.score.closed_form import LATER, closed_form
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.query import Query
from dppm_model.score.weights import set_weights


def denoising_losses(network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Return the mean square error of F per record, (n,), over its K draws and all pixels.

    Parameters
    ----------
    inputs
        (n, K, ...) each: the network's inputs, then the targets of F.
    """
    *taken, target = (t.flatten(0, 1) for t in inputs)
    return (network(*taken) - target).square().reshape(len(inputs[0]), -1).mean(dim=1)


class GradientQuery(Query):
    """A record's scaled gradient; see `Query`.

    Attributes
    ----------
    part
        Prefix of the network's arrays in the model: ``part.weights``, ``part.ema``, ...
    losses
        The loss of each record.
    """

    part: ClassVar[str]
    losses: ClassVar[Losses] = staticmethod(denoising_losses)
    chunk = CHUNK
    optional = LATER

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.network = self.build(model)
        set_weights(trainable(self.network).values(), model.arrays[f"{self.part}.weights"])

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return the number of weights that are trained; see `Query`."""
        return array_specs(config)[f"{cls.part}.weights"].shape[0]

    @abstractmethod
    def build(self, model: ScoreModel) -> nn.Module:
        """Build the network, its trained weights unset."""

    @cached_property
    def mixture(self) -> Mixture:
        """The closed form below the network."""
        return closed_form(self.model, self.device)

    @abstractmethod
    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records: the inputs of ``losses``."""

    @property
    def scale(self) -> float:
        """The factor applied to a gradient before it is clipped."""
        return self.model.arrays[f"{self.part}.scale"].item()  # type: ignore[no-any-return]

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the records' clipped gradients; see `Query`."""
        total = np.zeros(self.dimension, dtype=np.int64)
        for chunk in fixed_batches((x, y, seeds), CHUNK):
            inputs = self.questions(*chunk)
            total += clipped_sum(self.network, type(self).losses, inputs, grid, self.scale)
        return total

    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the records' scaled gradients; see `Query`."""
        left = len(x)
        for chunk in fixed_batches((x, y, seeds), CHUNK):
            found = per_record(self.network, type(self).losses, self.questions(*chunk))
            yield (found * self.scale)[:left]
            left -= len(found)
