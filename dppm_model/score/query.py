"""A question to records: the site's side of a phase.

A training run is a list of phases. In each round of a phase every sampled record has a vector
(``Query``, at the site), the federation sums the clipped vectors of its units through randomized
response, and the server's learner (`dppm_model.training`) turns the noisy estimate into a better
model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.mechanism.quantize import Grid
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig


class Query(nn.Module, ABC):
    """What one record answers in one round; built from the public model and the phase only.

    All that it computes with are parameters and buffers: ``to`` takes it to another device. What is
    drawn for a record is drawn on the CPU, and is the same on any.

    Attributes
    ----------
    chunk
        How many records are computed together; see `dppm_model.mechanism.fixed_batches`.
    needed, optional
        Names of the arrays that it asks by, and of those that it asks by once they are released.
        It is given no others.
    """

    chunk: int
    needed: ClassVar[frozenset[str]]
    optional: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: ScoreModel) -> None:
        """Take in the arrays of a model.

        Raises
        ------
        ModelError
            If it lacks one of those that are needed.
        """
        super().__init__()
        model.require(self.needed)
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where it is asked."""
        return next(chain(self.buffers(), self.parameters())).device

    @classmethod
    @abstractmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return the coordinates d of a record's vector, which the public configuration decides.

        Raises
        ------
        ConfigError
            If it gives the question nothing to ask for.
        """

    @property
    def dimension(self) -> int:
        """The same of this question."""
        return self.dimension_of(self.model.config)

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Look at records: the part or scale of their images that the question is about.

        Here, at their base images.

        Parameters
        ----------
        pixels
            (n, C, H, W) images; n may be 0.
        seeds
            (n,) int64 as below.

        Returns
        -------
        (n, ...) float32 on the question's device, pixels in [-1, 1]: each row a function of one
        record and its seed.
        """
        del seeds
        return self.model.encode(pixels).to(self.device)

    @abstractmethod
    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the records' vectors, each clipped to ``grid.clip_norm`` and rounded to integers.

        Parameters
        ----------
        x
            (n, ...) what `view` gave; n may be 0, the sum is then zero.
        y
            (n,) int64 class labels, on the same device.
        grid
            The clip norm and the integer grid of the plan.
        seeds
            (n,) int64 on the CPU: a secret seed for what is drawn for each record (noise levels and
            noise of the ``score`` phase), so that a record's vector depends on no other record.

        Returns
        -------
        (d,) int64.
        """

    @abstractmethod
    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the records' vectors before clipping, record by record in order: (n_i, d) float32.

        What persons answer is made from these (`dppm_model.mechanism.units`). Where each record is
        clipped by itself, `clipped_sum` is the faster way: few phases have to form their vectors.
        """
