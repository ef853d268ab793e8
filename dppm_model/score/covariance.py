"""The ``covariance`` phase: how the images of a class (or component) vary around the means.

A record answers the outer product of its half-whitened low residual, less what the model holds,
as an upper triangle with off-diagonals times sqrt(2) (an isometry); and, in the head, the smooth
part of its squared whitened residual image: a map of local contrast that all classes share.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.averaging import AveragingLearner
from dppm_model.score.class_sums import Answers, ClassSumQuery, Layout
from dppm_model.score.components import nearest, shared
from dppm_model.score.matrices import symmetric, upper, upper_outer
from dppm_model.score.model import CLOSED_FORM, ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.shrinkage import shrink_covariance

_LEAST_TEXTURE = 0.02  # of the prior's variance


class CovarianceQuery(ClassSumQuery):
    """Centred texture (head) and centred outer products (one slot per class)."""

    needed = CLOSED_FORM

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        mixture, self.band = model.config.mixture, model.scales.band
        self.unit = mixture.covariance_clip_norm**2
        self.texture_unit = self.unit * math.sqrt(self.basis.size) / mixture.texture_weight
        self.whitening = self.scales.half_whitening(self.band)
        self.mean = model.tensor("mixture.mean")
        self.components = model.tensor("mixture.components")
        self.weights = model.tensor("mixture.component_weights")
        w = self.whitening.float()
        self.centre = upper(model.tensor("mixture.covariance") * w * w[:, None])
        texture = model.tensor("mixture.texture")
        self.texture_centre = self.basis.forward(texture[None])[0, : self.head]

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `ClassSumQuery`."""
        d = config.scales.band
        return Layout(config.scales.texture, config.classes, d * (d + 1) // 2)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        u = self.basis.forward(x)
        w = self.whitening.float()
        component = nearest(u[:, : self.band] * w, y, self.components * w, self.weights)
        low = u[:, : self.band] - self.components[y, component]
        residual = torch.cat([low, u[:, self.band :] - self.mean[y, self.band :]], dim=1)
        contrast = self.basis.inverse(residual / self.scales.std.float()) ** 2
        head = self.basis.forward(contrast)[:, : self.head] - self.texture_centre
        r = low * w
        body = upper_outer(r) - self.centre[y]
        return Answers(head / self.texture_unit, y, body / self.unit)


class CovarianceLearner(AveragingLearner):
    """Averages the rounds of a ``covariance`` phase; see `dppm_model.score.query.Learner`."""

    totals = ("texture", "body")

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(shared(model))
        query = CovarianceQuery(model)
        self._texture = torch.zeros(query.head, dtype=torch.float64)
        self._body = torch.zeros((query.slots, query.body), dtype=torch.float64)

    def query(self) -> CovarianceQuery:
        """Ask around the present covariance."""
        return CovarianceQuery(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Add a round."""
        query = self.query()
        head, body = query.split(estimate)
        frequency = torch.from_numpy(self._start.class_weights())
        self._rounds += 1
        self._variance += std**2
        self._texture += query.texture_centre + head * query.texture_unit
        self._body += query.centre + body * query.unit / frequency[:, None]
        self._model = self._fit()

    def _fit(self) -> ScoreModel:
        query = CovarianceQuery(self._start)
        w = query.whitening
        smooth = torch.zeros((1, query.basis.size), dtype=torch.float64)
        smooth[0, : query.head] = self._texture / self._rounds
        texture = query.basis.inverse(smooth)[0].clamp(min=_LEAST_TEXTURE)
        prior = self._prior(texture) * w * w[:, None]
        std = math.sqrt(self._variance / 2) / self._rounds * query.unit
        frequency = self._start.class_weights()
        whitened = symmetric(self._body / self._rounds, query.band)
        covariance = torch.stack(
            [
                shrink_covariance(matrix, std / p, shape)
                for matrix, p, shape in zip(whitened, frequency, prior, strict=True)
            ]
        )
        return self._start.released(
            {"mixture.covariance": covariance / w / w[:, None], "mixture.texture": texture}
        )

    def _prior(self, texture: torch.Tensor) -> torch.Tensor:
        """Return the shape of what noise covers (classes, d, d), from public records or none."""
        if self._start.config.public is not None:
            return self._start.tensor("mixture.covariance").double()
        prior = self._start.scales.modulated_prior(texture, slice(self._start.scales.band))
        return prior.expand(self._start.classes, -1, -1)
