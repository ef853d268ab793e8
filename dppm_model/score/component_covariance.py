"""The ``component_covariance`` phase: how the images of a component vary, beside its class's.

Images vary around different centres in different directions, so that a few Gaussians with
covariances of their own say more than many that share one. A record answers the outer product of
its residual to the nearest component, in the principal axes of its class, less what the model
holds. All components' differences are shrunk together, by what they turn out to be worth.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.errors import ConfigError
from dppm_model.mechanism.products import rows_by
from dppm_model.score.averaging import AveragingLearner
from dppm_model.score.class_sums import Answers, ClassSumQuery, Layout
from dppm_model.score.components import nearest, shared
from dppm_model.score.matrices import (
    clip_eigenvalues,
    principal_axes,
    symmetric,
    upper,
    upper_outer,
)
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.shrinkage import wiener

_LEAST, _MOST = 0.1, 4.0  # times the class's variance, in any direction
_LEAST_COUNT = 1e-4  # share of all records: of smaller components nothing is learned


class ComponentCovarianceQuery(ClassSumQuery):
    """Centred outer products in the class's axes (one slot per component of each class).

    The axes are half-whitened with the class covariance: coordinates have the standard deviations
    ``std`` (classes, m), whose squares are the square roots of the half-whitened variances. As for
    `Scales.half_whitening`, it is where a given clip norm lets the least noise come back.
    """

    needed = frozenset(
        f"mixture.{name}"
        for name in (
            "class_weights",
            "component_weights",
            "components",
            "principal_axes",
            "component_covariance",
        )
    )

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        mixture, self.band, self.axes = (
            model.config.mixture,
            model.scales.band,
            model.scales.principal_axes,
        )
        self.components_each = mixture.components
        self.whitening = model.scales.half_whitening(self.band)
        self.components = model.tensor("mixture.components")
        self.weights = model.tensor("mixture.component_weights")
        class_weights = model.tensor("mixture.class_weights")
        self.frequency = (class_weights[:, None] * self.weights).flatten().double()
        axes = model.tensor("mixture.principal_axes").double() * self.whitening[:, None]
        variance = (axes**2).sum(1)  # (classes, m), half-whitened
        self.std = variance**0.25
        self.projection = (axes * (self.std / variance)[:, None]).float()
        self.unit = mixture.component_covariance_clip_norm * (self.std**2).sum(1)
        released = model.tensor("mixture.component_covariance").double()
        relative = torch.eye(self.axes, dtype=torch.float64) + symmetric(
            released.flatten(0, 1), self.axes
        )
        each = self.std.repeat_interleave(self.components_each, 0)
        self.centre = upper(relative * each[:, :, None] * each[:, None])

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `ClassSumQuery`.

        Raises
        ------
        ConfigError
            If there are no axes.
        """
        m = config.scales.principal_axes
        if not m:
            raise ConfigError(
                "mixture.principal_axes is 0.",
                "Set model.mixture.principal_axes, to 64 for instance.",
            )
        return Layout(0, config.classes * config.mixture.components, m * (m + 1) // 2)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        w = self.whitening.float()
        u = self.basis.forward(x)[:, : self.band] * w
        component = nearest(u, y, self.components * w, self.weights)
        a = self.projected(u - self.components[y, component] * w, y)
        slot = y * self.components_each + component
        body = upper_outer(a) - self.centre.float()[slot]
        return Answers(body[:, :0], slot, body / self.unit.float()[y, None])

    def projected(self, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return residuals r (n, d) in the axes of their classes y (n,): (n, m).

        Products are over all rows for each class that occurs: who else is of it decides nothing.
        """
        a = torch.empty(len(r), self.axes)
        for k in torch.unique(y):
            rows = y == k
            a[rows] = rows_by(r, self.projection[k])[rows]
        return a


class ComponentCovarianceLearner(AveragingLearner):
    """Averages the rounds of the phase; see `dppm_model.score.query.Learner`."""

    totals = ("body",)

    def __init__(self, model: ScoreModel) -> None:
        covariance = model.tensor("mixture.covariance").double()
        whitening = model.scales.half_whitening(model.scales.band)
        axes = principal_axes(covariance, whitening, model.scales.principal_axes)
        _, slots, body = ComponentCovarianceQuery.layout(model.config)
        same = torch.zeros(model.classes, slots // model.classes, body)
        super().__init__(
            shared(model).released(
                {"mixture.principal_axes": axes, "mixture.component_covariance": same}
            )
        )
        query = ComponentCovarianceQuery(self._start)
        self._body = torch.zeros((query.slots, query.body), dtype=torch.float64)

    def query(self) -> ComponentCovarianceQuery:
        """Ask around the present covariances."""
        return ComponentCovarianceQuery(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Add a round."""
        query = self.query()
        _, body = query.split(estimate)
        self._rounds += 1
        self._variance += std**2
        self._body += query.centre + body * self._scale(query)
        self._model = self._fit()

    @staticmethod
    def _scale(query: ComponentCovarianceQuery) -> torch.Tensor:
        """What a coordinate of an estimate is worth in a component's covariance, (slots, 1)."""
        unit = query.unit.repeat_interleave(query.components_each)
        return (unit / query.frequency.clamp(min=_LEAST_COUNT))[:, None]

    def _fit(self) -> ScoreModel:
        """Shrink classes' mean differences, and each component's difference to that mean."""
        query = ComponentCovarianceQuery(self._start)
        shape = (self._start.classes, query.components_each, -1)
        noise = (self._variance / self._rounds**2 * self._scale(query) ** 2).expand_as(self._body)
        weights = query.weights.double()[:, :, None]
        difference = (self._body / self._rounds - query.centre).view(shape)
        mean = (weights * difference).sum(1)
        noise_of_mean = (weights**2 * noise.reshape(shape)).sum(1)
        shell = _shells(query.axes)
        own = wiener((difference - mean[:, None]).flatten(0, 1), noise, shell).view(shape)
        total = own + wiener(mean, noise_of_mean, shell)[:, None]
        std = query.std.repeat_interleave(query.components_each, 0)
        relative = symmetric(total.flatten(0, 1), query.axes) / std[:, :, None] / std[:, None]
        triangles = upper(clip_eigenvalues(relative, _LEAST - 1, _MOST - 1)).view(shape)
        return self._start.released({"mixture.component_covariance": triangles})


def _shells(axes: int) -> torch.Tensor:
    """Number the entries of an upper triangle by the octaves of their two axes' ranks, int64."""
    octave = torch.log2(torch.arange(axes) + 1.0).long()
    rows, columns = torch.triu_indices(axes, axes)
    return octave[rows] * (math.ceil(math.log2(axes + 1)) + 1) + octave[columns]
