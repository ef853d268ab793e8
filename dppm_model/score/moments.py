"""Moment questions: what a record answers so that a Gaussian mixture can be fitted to the sums.

Two ask for sums of all records, two for sums of a class, two for sums of a component; see
`dppm_model.score.class_sums` for their common shape, and `dppm_model.training.moments` for what is
made of the answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ConfigError
from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.products import rows_by
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.class_sums import Answers, ClassSumQuery, Layout, MomentQuery, Sums
from dppm_model.score.matrices import symmetric, upper, upper_outer
from dppm_model.score.mixture_config import half_whitening
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig

_ROWS = 4  # matrices that are formed together


def clip_rows(r: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """Shorten each row of r (n, d) to length ``clip_norm`` and scale it to at most one."""
    norm: torch.Tensor = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    return r / norm.clamp(min=clip_norm)


def nearest(
    u: torch.Tensor, y: torch.Tensor, components: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the nearest component of its class for each record, (n,) int64.

    One product is over all rows and all classes: who else is of a record's class decides nothing.

    u (n, r) and components (classes, J, r) in the same whitened coordinates; components of weight
    zero (classes, J) are passed over.
    """
    every = components.flatten(0, 1)
    square = (every**2).sum(1) - 2 * rows_by(u, every.T)
    square = square.masked_fill(weights.flatten() <= 0, torch.inf)
    rows = torch.arange(len(y), device=y.device)
    return square.view(-1, *weights.shape)[rows, y].argmin(1)


def _counted(slot: torch.Tensor, body: torch.Tensor, query: ClassSumQuery, norm: float) -> Answers:
    """Return ``w_c (onehot(slot) - p) ∥ sqrt(1 - w_c²) clip(body)``."""
    weight = query.model.config.mixture.count_weight
    count = torch.nn.functional.one_hot(slot, query.slots) - query.centre.head
    return Answers(count * weight, slot, clip_rows(body, norm) * math.sqrt(1 - weight**2))


def _keep_counted(
    query: ClassSumQuery, frequency: torch.Tensor, centres: torch.Tensor, unit: torch.Tensor
) -> None:
    """Set what `_counted` sums: frequencies (slots,), and centres (slots, b) in ``unit`` (b,)."""
    weight = query.model.config.mixture.count_weight
    head = torch.tensor(1 / weight, dtype=torch.float64)
    body = unit.double() / math.sqrt(1 - weight**2)
    query.keep_sums(Sums(frequency, centres), Sums(head, body))


class MeansQuery(ClassSumQuery):
    """``means``: class frequencies and class means.

    A record of class k answers ``w_c (onehot(k) - p) ∥ onehot(k) ⊗ clip(w · (u - m_k))``.
    """

    needed = frozenset({"mixture.class_weights", "mixture.mean", "mixture.variance"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.clip_norm = model.config.mixture.means_clip_norm
        self.whitening = nn.Buffer(half_whitening(model.tensor("mixture.variance").double().sqrt()))
        unit = self.clip_norm / self.whitening
        frequency = model.tensor("mixture.class_weights")
        _keep_counted(self, frequency, model.tensor("mixture.mean"), unit)

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        return Layout(config.classes, config.classes, config.scales.basis.size)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        residual = (self.basis.forward(x) - self.centre.body[y]) * self.whitening.float()
        return _counted(y, residual, self, self.clip_norm)


class VariancesQuery(ClassSumQuery):
    """``variances``: how each coefficient varies around the class means, over all classes.

    A record answers the squares of its whitened residuals, less one. Their norm is about the root
    of 2 P for a Gaussian, far less than that of the squared residual as a whole.
    """

    needed = frozenset({"mixture.mean", "mixture.variance"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.mean = nn.Buffer(model.tensor("mixture.mean"))
        self.variance = nn.Buffer(model.tensor("mixture.variance"))
        norm = model.config.mixture.variances_clip_norm * math.sqrt(2 * self.body)
        self.keep_sums(
            Sums(torch.zeros(0), torch.ones(1, self.body)),
            Sums(torch.zeros(0), torch.full((self.body,), norm, dtype=torch.float64)),
        )

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        return Layout(0, 1, config.scales.basis.size)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        square = (self.basis.forward(x) - self.mean[y]) ** 2 / self.variance
        body = (square - self.centre.body) / self.scale.body.float()
        return Answers(body[:, :0], torch.zeros_like(y), body)


class PooledCovarianceQuery(MomentQuery):
    """``pooled_covariance``: how the band varies around class means, over all classes.

    Pooled over all records it is known well even at a small epsilon, and a classifier cannot
    mistake its noise for a class. A record answers the outer product r rᵀ of its half-whitened
    residual.

    The vector is the whole matrix, flattened, so that rounding r to integers is enough: r rᵀ is
    then a matrix of integers whose norm is the integer |r|², and a sum of them is one matrix
    product, exact in float64 whatever its order.
    """

    needed = frozenset({"mixture.mean", "mixture.variance"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.side = model.scales.band
        self.mean = nn.Buffer(model.tensor("mixture.mean")[:, : self.side])
        variance = model.tensor("mixture.variance")[: self.side].double()
        self.whitening = nn.Buffer(half_whitening(variance.sqrt()))
        self.unit = model.config.mixture.covariance_clip_norm**2
        self.keep_sums(
            Sums(*torch.zeros(2)), Sums(*torch.full((2,), self.unit, dtype=torch.float64))
        )

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        return Layout(0, 1, config.scales.band**2)

    def _residuals(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return r (n, side) such that r rᵀ is a record's vector before clipping."""
        r = (self.basis.forward(x)[:, : self.side] - self.mean[y]) * self.whitening.float()
        return r / math.sqrt(self.unit)

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the clipped integer matrices; see `dppm_model.score.query.Query`."""
        del seeds  # nothing is drawn
        total = x.new_zeros((self.side, self.side), dtype=torch.float64)
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


class _AxesQuery(ClassSumQuery):
    """A question about records in the first r axes, half-whitened by their pooled variances."""

    needed = frozenset(
        f"mixture.{name}"
        for name in (
            "class_weights",
            "mean",
            "axes",
            "axis_variance",
            "component_weights",
            "components",
        )
    )

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        d, r = model.scales.band, model.scales.axes
        std = model.tensor("mixture.axis_variance")[:r].double().sqrt()
        self.whitening = nn.Buffer(half_whitening(std))
        axes = model.tensor("mixture.axes")[:, :r].double()
        self.projection = nn.Buffer((axes * self.whitening).float())
        self.mean = nn.Buffer(model.tensor("mixture.mean")[:, :d])
        self.weights = nn.Buffer(model.tensor("mixture.component_weights"))
        self.components = nn.Buffer((model.tensor("mixture.components") * self.whitening).float())

    def projected(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return residuals to the class means in the half-whitened axes, (n, r)."""
        low = self.basis.forward(x)[:, : len(self.projection)] - self.mean[y]
        return rows_by(low, self.projection)

    def around(
        self, a: torch.Tensor, y: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the nearest component of each record, (n,), and the residual to it, (n, r)."""
        component = nearest(a, y, self.components, weights)
        return component, a - self.components[y, component]


class CovarianceQuery(_AxesQuery):
    """``covariance``: how the images of a class vary around its components, in the axes.

    A record answers the outer product of its half-whitened residual, less what the model holds, as
    an upper triangle with off-diagonals times sqrt(2) (an isometry).
    """

    needed = _AxesQuery.needed | {"mixture.covariance"}

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        w = self.whitening
        held = model.tensor("mixture.covariance").double() * w * w[:, None]
        unit = model.config.mixture.covariance_clip_norm**2
        self.keep_sums(
            Sums(torch.zeros(0), upper(held)),
            Sums(torch.zeros(0), torch.tensor(unit, dtype=torch.float64)),
        )

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        r = config.scales.axes
        return Layout(0, config.classes, r * (r + 1) // 2)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        _, residual = self.around(self.projected(x, y), y, self.weights)
        body = upper_outer(residual) - self.centre.body.float()[y]
        return Answers(body[:, :0], y, body / self.scale.body.float())


class ComponentsQuery(_AxesQuery):
    """``components``: the component j of its class that is nearest to a record, in the axes.

    It answers ``w_c (onehot(k, j) - p) ∥ onehot(k, j) ⊗ clip(a - mu_kj)``.
    """

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.every = nn.Buffer(torch.ones_like(self.weights))  # an empty one may win some records
        self.clip_norm = model.config.mixture.components_clip_norm
        frequency = model.tensor("mixture.class_weights")[:, None] * self.weights
        centres = model.tensor("mixture.components").flatten(0, 1)
        _keep_counted(self, frequency.flatten(), centres, self.clip_norm / self.whitening)

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        slots = config.classes * config.mixture.components
        return Layout(slots, slots, config.scales.axes)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        component, residual = self.around(self.projected(x, y), y, self.every)
        slot = y * self.every.shape[1] + component
        return _counted(slot, residual, self, self.clip_norm)


class ComponentCovarianceQuery(_AxesQuery):
    """``component_covariance``: how the images of a component vary, beside those of its class.

    Images vary around different centres in different directions, so that a few Gaussians with
    covariances of their own say more than many that share one. A record answers the outer product
    of its residual to the nearest component, in the principal axes of its class, less what the
    model holds.

    The principal axes are half-whitened once more, with the class covariance: coordinates have the
    standard deviations ``class_std`` (classes, m), whose squares are the square roots of the
    variances, because there a given clip norm lets the least noise come back.
    """

    needed = _AxesQuery.needed | {"mixture.principal_axes", "mixture.component_covariance"}

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        mixture = model.config.mixture
        self.principal_axes, self.components_each = model.scales.principal_axes, mixture.components
        axes = model.tensor("mixture.principal_axes").double() * self.whitening[:, None]
        variance = (axes**2).sum(1)  # (classes, m), half-whitened
        self.class_std = nn.Buffer(variance**0.25)
        self.class_projection = nn.Buffer((axes * (self.class_std / variance)[:, None]).float())
        norm = mixture.component_covariance_clip_norm
        self.unit = nn.Buffer(norm**2 * (self.class_std**2).sum(1))
        released = model.tensor("mixture.component_covariance").double()
        relative = torch.eye(self.principal_axes, dtype=torch.float64) + symmetric(
            released.flatten(0, 1), self.principal_axes
        )
        each = self.class_std.repeat_interleave(self.components_each, 0)
        centre = upper(relative * each[:, :, None] * each[:, None])
        unit = self.unit.repeat_interleave(self.components_each)
        self.keep_sums(Sums(torch.zeros(0), centre), Sums(torch.zeros(0), unit[:, None]))

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`.

        Raises
        ------
        ConfigError
            If there are no axes.
        """
        m = config.scales.principal_axes
        if not m:
            raise ConfigError(
                "mixture.principal_axes is 0.", "Set model.mixture.principal_axes, for instance 64."
            )
        return Layout(0, config.classes * config.mixture.components, m * (m + 1) // 2)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        component, residual = self.around(self.projected(x, y), y, self.weights)
        a = self.in_principal_axes(residual, y)
        slot = y * self.components_each + component
        body = upper_outer(a) - self.centre.body.float()[slot]
        return Answers(body[:, :0], slot, body / self.unit.float()[y, None])

    def in_principal_axes(self, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return residuals r (n, axes) in the principal axes of their classes y (n,): (n, m).

        Products are over all rows for each class that occurs: who else is of it decides nothing.
        """
        a = r.new_empty(len(r), self.principal_axes)
        for k in torch.unique(y):
            rows = y == k
            a[rows] = rows_by(r, self.class_projection[k])[rows]
        return a
