"""The ``fine_covariance`` phase: how the fine structure of all images varies around class means.

The coefficients above the band get one covariance for all classes: pooled over all records it is
known well even at a small epsilon, and a classifier cannot mistake its noise for a class. A record
answers the outer product r rᵀ of its half-whitened residual in those coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.errors import ConfigError
from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.averaging import AveragingLearner
from dppm_model.score.matrices import upper
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pyramid import to_base
from dppm_model.score.shrinkage import shrink_covariance

_ROWS = 4  # vectors that are formed together


class FineCovarianceQuery:
    """Outer products of fine coefficients; see `dppm_model.score.query.Query`.

    The vector is the whole matrix, flattened, so that rounding r to integers is enough: r rᵀ is
    then a matrix of integers whose norm is the integer |r|², and a sum of them is one matrix
    product, exact in float64 whatever its order.
    """

    needed: ClassVar[frozenset[str]] = frozenset({"mixture.mean", "mixture.texture"})
    chunk = 256
    optional: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, model: ScoreModel) -> None:
        model.require(self.needed)
        self.stages, self.band = model.config.pyramid.stages, model.scales.band
        self.basis, self.side = model.scales.basis, model.scales.fine_band
        self.whitening = model.scales.fine_whitening()
        self.mean = model.tensor("mixture.mean")
        prior = model.scales.fine_prior(model.tensor("mixture.texture"))
        trace = float((prior.diagonal()[: self.side] * self.whitening**2).sum())
        self.unit = model.config.mixture.fine_covariance_clip_norm**2 * trace

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return d; see `dppm_model.score.query.Query`.

        Raises
        ------
        ConfigError
            If there are no such coefficients.
        """
        if not config.scales.fine_band:
            raise ConfigError(
                "mixture.fine_band is 0.", "Set model.mixture.fine_covariance, to 640 for instance."
            )
        return config.scales.fine_band**2

    @property
    def dimension(self) -> int:
        """Number of coordinates d of a record's vector."""
        return self.side**2

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Look at the base images; see `dppm_model.score.query.Query`."""
        del seeds
        return to_base(pixels, self.stages)

    def _residuals(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return r (n, side) such that r rᵀ is a record's vector before clipping."""
        fine = slice(self.band, self.band + self.side)
        r = (self.basis.forward(x) - self.mean[y])[:, fine] * self.whitening.float()
        return r / math.sqrt(self.unit)

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the clipped integer matrices; see `dppm_model.score.query.Query`."""
        del seeds  # nothing is drawn
        total = torch.zeros((self.side, self.side), dtype=torch.float64)
        # |r|² is at most C, in steps.
        root = replace(grid, clip_norm=math.sqrt(grid.clip_norm), steps=math.isqrt(grid.steps))
        half = root.clip_norm / root.steps / 2
        for images, labels in fixed_batches((x, y), self.chunk):
            r = self._residuals(images, labels)
            r = root.quantize(r + half * r.sign())  # rounding to the nearest: r rᵀ is not biased
            total += r.T @ r
        return grid.whole(total.flatten(), len(x))

    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the matrices, flattened; see `dppm_model.score.query.Query`."""
        del seeds
        left = len(x)
        for images, labels in fixed_batches((x, y), self.chunk):
            for r in torch.split(self._residuals(images, labels)[:left], _ROWS):
                yield (r[:, :, None] * r[:, None]).flatten(1)
            left -= self.chunk


class FineCovarianceLearner(AveragingLearner):
    """Averages the rounds of a ``fine_covariance`` phase; see `dppm_model.score.query.Learner`."""

    totals = ("total",)

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self._query = FineCovarianceQuery(model)
        self._total = torch.zeros((self._query.side,) * 2, dtype=torch.float64)

    def query(self) -> FineCovarianceQuery:
        """Ask the same question each round."""
        return self._query

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Add a round."""
        self._rounds += 1
        self._variance += std**2
        matrix = torch.from_numpy(np.asarray(estimate, dtype=np.float64))
        self._total += matrix.reshape(self._total.shape) * self._query.unit
        self._model = self._fit()

    def _fit(self) -> ScoreModel:
        """Both triangles carry noise of their own: their mean has half its variance."""
        matrix = (self._total + self._total.T) / 2 / self._rounds
        w, side = self._query.whitening, self._query.side
        prior = self._start.fine_covariance()[:side, :side] * w * w[:, None]
        std = math.sqrt(self._variance / 2) / self._rounds * self._query.unit
        covariance = shrink_covariance(matrix, std, prior) / w / w[:, None]
        return self._start.released({"mixture.fine_covariance": upper(covariance[None])[0]})
