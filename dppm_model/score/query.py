"""A question to records: the site's side of a phase.

A training run is a list of phases. In each round of a phase, a ``Query`` at the site computes a
vector for every sampled record, the federation sums the clipped vectors of its units through
randomized response, and the server's learner (`dppm_model.training`) turns the noisy estimate into
a better model.
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
    """The answer of a record in one round; built from the public model and the phase only.

    It computes with parameters and buffers only, so ``to`` moves it to another device. Random
    numbers for a record are drawn on the CPU, and are the same for every device.

    Attributes
    ----------
    chunk
        Number of records in a batch; see `dppm_model.mechanism.fixed_batches`.
    needed, optional
        Names of the arrays that it needs, and of those that it uses once they are released. It
        receives no others.
    """

    chunk: int
    needed: ClassVar[frozenset[str]]
    optional: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: ScoreModel) -> None:
        """Take the arrays of a model.

        Raises
        ------
        ModelError
            If the model lacks one in ``needed``.
        """
        super().__init__()
        model.require(self.needed)
        self.model = model

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        return next(chain(self.buffers(), self.parameters())).device

    @classmethod
    @abstractmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return the coordinates d of a record's vector, which the public configuration decides.

        Raises
        ------
        ConfigError
            If the model has no part that the question is about.
        """

    @property
    def dimension(self) -> int:
        """The coordinates d of this question."""
        return self.dimension_of(self.model.config)

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Return the part or scale of the records' images that the question is about.

        By default, their base images.

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
            (n, ...) from `view`; n may be 0, the sum is then zero.
        y
            (n,) int64 class labels, on the same device.
        grid
            The clip norm and the integer grid of the plan.
        seeds
            (n,) int64 on the CPU: a secret seed for each record's random numbers (noise levels and
            noise of the ``score`` phase), so that a record's vector depends on no other record.

        Returns
        -------
        (d,) int64.
        """

    @abstractmethod
    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the records' vectors before clipping, record by record in order: (n_i, d) float32.

        The answers of persons are computed from these (`dppm_model.mechanism.units`). If each
        record is clipped on its own, `clipped_sum` is faster: few phases must form their vectors.
        """
