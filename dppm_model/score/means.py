"""The ``means`` phase: class frequencies and class means.

A record of class k answers ``w_c (onehot(k) - p) ∥ onehot(k) ⊗ clip(w · (u - m_k))``, where p and m
are what the model holds already. Centring at the model makes a site's sum small (cheap to encode)
and clips around the right place.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.averaging import AveragingLearner
from dppm_model.score.class_sums import Answers, ClassSumQuery, Layout
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.shrinkage import octaves, wiener

_LEAST_WEIGHT = 0.2  # a class weight is at least this much of an equal share


def clip_rows(r: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """Shorten each row of r (n, d) to length ``clip_norm`` and scale it to at most one."""
    norm: torch.Tensor = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    return r / norm.clamp(min=clip_norm)


class MeansQuery(ClassSumQuery):
    """Counts (head) and half-whitened residuals to the class means (one slot per class)."""

    needed = frozenset({"mixture.class_weights", "mixture.mean"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.clip_norm = model.config.mixture.means_clip_norm
        self.count_weight = model.config.mixture.count_weight
        self.body_weight = math.sqrt(1 - self.count_weight**2)
        self.whitening = model.scales.half_whitening(self.body)
        self.frequency = model.tensor("mixture.class_weights")
        self.mean = model.tensor("mixture.mean")

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `ClassSumQuery`."""
        return Layout(config.classes, config.classes, config.scales.basis.size)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        count = torch.nn.functional.one_hot(y, self.slots) - self.frequency
        r = (self.basis.forward(x) - self.mean[y]) * self.whitening.float()
        body = clip_rows(r, self.clip_norm) * self.body_weight
        return Answers(count * self.count_weight, y, body)


class MeansLearner(AveragingLearner):
    """Averages the rounds of a ``means`` phase; see `dppm_model.score.query.Learner`."""

    totals = ("frequency", "residual", "centre")

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        zeros = torch.zeros(model.arrays["mixture.mean"].shape, dtype=torch.float64)
        self._frequency = torch.zeros(model.classes, dtype=torch.float64)
        self._residual = zeros.clone()
        self._centre = zeros.clone()

    def query(self) -> MeansQuery:
        """Ask around the present means."""
        return MeansQuery(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Add a round: E[onehot u] = E[onehot (u - centre)] + p · centre."""
        query = self.query()
        count, residual = query.split(estimate)
        self._rounds += 1
        self._variance += std**2
        self._frequency += query.frequency + count / query.count_weight
        self._residual += residual * query.clip_norm / query.body_weight / query.whitening
        self._centre += query.mean
        self._model = self._fit()

    def _fit(self) -> ScoreModel:
        query = MeansQuery(self._start)
        frequency = (self._frequency / self._rounds).clamp(min=_LEAST_WEIGHT / query.slots)
        mean = (self._centre + self._residual / frequency[:, None]) / self._rounds
        std = math.sqrt(self._variance) / self._rounds * query.clip_norm / query.body_weight
        noise = (std / query.whitening * query.slots) ** 2  # of a class of the average size
        shell = octaves(self._start.scales.std)
        # Shrink towards what was known before: all classes' common step, and each class's from it.
        share = frequency / frequency.sum()
        step = mean - query.mean.double()
        common = (share @ step)[None]
        step = wiener(common, noise / query.slots, shell) + wiener(step - common, noise, shell)
        mean = query.mean + step
        shift = mean - query.mean
        components = torch.from_numpy(self._start.arrays["mixture.components"])
        components = components + shift[:, None, : components.shape[2]]
        return self._start.released(
            {
                "mixture.class_weights": share,
                "mixture.mean": mean,
                "mixture.components": components,
            }
        )
