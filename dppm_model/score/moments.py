"""Moment questions: what a record answers so that a Gaussian mixture can be fitted to the sums.

Three ask for sums of a class, two for sums of a component; see `dppm_model.score.class_sums` for
their common shape, and `dppm_model.training.moments` for what is made of the answers.
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
from dppm_model.score.closed_form import CLOSED_FORM
from dppm_model.score.matrices import symmetric, upper, upper_outer
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

    u (n, d) and components (classes, J, d) in the same whitened coordinates; components of weight
    zero (classes, J) are passed over.
    """
    every = components.flatten(0, 1)
    square = (every**2).sum(1) - 2 * rows_by(u, every.T)
    square = square.masked_fill(weights.flatten() <= 0, torch.inf)
    rows = torch.arange(len(y), device=y.device)
    return square.view(-1, *weights.shape)[rows, y].argmin(1)


class _ResidualQuery(ClassSumQuery):
    """Counts (head), and clipped residuals to the centres (one slot a centre)."""

    def __init__(self, model: ScoreModel, clip_norm: float) -> None:
        super().__init__(model)
        self.clip_norm = clip_norm
        self.count_weight = model.config.mixture.count_weight
        self.body_weight = math.sqrt(1 - self.count_weight**2)
        self.whitening = nn.Buffer(model.scales.half_whitening(self.body))

    def _center(self, frequency: torch.Tensor, centres: torch.Tensor) -> None:
        body = self.clip_norm / self.body_weight / self.whitening
        head = torch.tensor(1 / self.count_weight, dtype=torch.float64)
        self.keep_sums(Sums(frequency, centres), Sums(head, body))

    def _bounded(self, slot: torch.Tensor, r: torch.Tensor) -> Answers:
        """Return ``w_c (onehot(slot) - p)``, and the whitened residuals r (n, b), clipped."""
        count = torch.nn.functional.one_hot(slot, self.slots) - self.centre.head
        body = clip_rows(r, self.clip_norm) * self.body_weight
        return Answers(count * self.count_weight, slot, body)


class MeansQuery(_ResidualQuery):
    """``means``: class frequencies and class means.

    A record of class k answers ``w_c (onehot(k) - p) ∥ onehot(k) ⊗ clip(w · (u - m_k))``.
    """

    needed = frozenset({"mixture.class_weights", "mixture.mean"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model, model.config.mixture.means_clip_norm)
        self._center(model.tensor("mixture.class_weights"), model.tensor("mixture.mean"))

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        return Layout(config.classes, config.classes, config.scales.basis.size)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        return self._bounded(
            y, (self.basis.forward(x) - self.centre.body[y]) * self.whitening.float()
        )


class ComponentsQuery(_ResidualQuery):
    """``components``: the same for the component j of its class that is nearest to a record.

    It answers ``w_c (onehot(k, j) - p) ∥ onehot(k, j) ⊗ clip(w · (u - mu_kj))``.
    """

    needed = frozenset({"mixture.class_weights", "mixture.component_weights", "mixture.components"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model, model.config.mixture.components_clip_norm)
        self.components = nn.Buffer(model.tensor("mixture.components"))
        weights = model.tensor("mixture.component_weights")
        self.every = nn.Buffer(torch.ones_like(weights))  # one that lost its records may win some
        frequency = (model.tensor("mixture.class_weights")[:, None] * weights).flatten()
        self._center(frequency, self.components.flatten(0, 1))

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        slots = config.classes * config.mixture.components
        return Layout(slots, slots, config.scales.band)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        w = self.whitening.float()
        u = self.basis.forward(x)[:, : self.body] * w
        slot = y * self.every.shape[1] + nearest(u, y, self.components * w, self.every)
        return self._bounded(slot, u - self.centre.body[slot] * w)


class CovarianceQuery(ClassSumQuery):
    """``covariance``: how the images of a class (or component) vary around the means.

    A record answers the outer product of its half-whitened low residual, less what the model
    holds, as an upper triangle with off-diagonals times sqrt(2) (an isometry); and, in the head,
    the smooth part of its squared whitened residual image: a map of local contrast, the texture,
    that all classes share.
    """

    needed = CLOSED_FORM

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        mixture, self.band = model.config.mixture, model.scales.band
        self.whitening = nn.Buffer(self.scales.half_whitening(self.band))
        self.mean = nn.Buffer(model.tensor("mixture.mean"))
        self.components = nn.Buffer(model.tensor("mixture.components"))
        self.weights = nn.Buffer(model.tensor("mixture.component_weights"))
        self.std = nn.Buffer(self.scales.std)
        w = self.whitening.float()
        texture = model.tensor("mixture.texture")
        centre = Sums(
            self.basis.forward(texture[None])[0, : self.head],
            upper(model.tensor("mixture.covariance") * w * w[:, None]),
        )
        unit = mixture.covariance_clip_norm**2
        head = unit * math.sqrt(self.basis.size) / mixture.texture_weight
        self.keep_sums(centre, Sums(*torch.tensor([head, unit], dtype=torch.float64)))

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`."""
        d = config.scales.band
        return Layout(config.scales.texture, config.classes, d * (d + 1) // 2)

    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors before the final clip; see `ClassSumQuery`."""
        u = self.basis.forward(x)
        w = self.whitening.float()
        component = nearest(u[:, : self.band] * w, y, self.components * w, self.weights)
        low = u[:, : self.band] - self.components[y, component]
        residual = torch.cat([low, u[:, self.band :] - self.mean[y, self.band :]], dim=1)
        contrast = self.basis.inverse(residual / self.std.float()) ** 2
        head = self.basis.forward(contrast)[:, : self.head] - self.centre.head
        body = upper_outer(low * w) - self.centre.body[y]
        return Answers(head / self.scale.head, y, body / self.scale.body)


class ComponentCovarianceQuery(ClassSumQuery):
    """``component_covariance``: how the images of a component vary, beside those of its class.

    Images vary around different centres in different directions, so that a few Gaussians with
    covariances of their own say more than many that share one. A record answers the outer product
    of its residual to the nearest component, in the principal axes of its class, less what the
    model holds.

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
        mixture, self.band = model.config.mixture, model.scales.band
        self.axes, self.components_each = model.scales.principal_axes, mixture.components
        self.whitening = nn.Buffer(model.scales.half_whitening(self.band))
        self.components = nn.Buffer(model.tensor("mixture.components"))
        self.weights = nn.Buffer(model.tensor("mixture.component_weights"))
        axes = model.tensor("mixture.principal_axes").double() * self.whitening[:, None]
        variance = (axes**2).sum(1)  # (classes, m), half-whitened
        self.std = nn.Buffer(variance**0.25)
        self.projection = nn.Buffer((axes * (self.std / variance)[:, None]).float())
        self.unit = nn.Buffer(mixture.component_covariance_clip_norm * (self.std**2).sum(1))
        released = model.tensor("mixture.component_covariance").double()
        relative = torch.eye(self.axes, dtype=torch.float64) + symmetric(
            released.flatten(0, 1), self.axes
        )
        each = self.std.repeat_interleave(self.components_each, 0)
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
        w = self.whitening.float()
        u = self.basis.forward(x)[:, : self.band] * w
        component = nearest(u, y, self.components * w, self.weights)
        a = self.projected(u - self.components[y, component] * w, y)
        slot = y * self.components_each + component
        body = upper_outer(a) - self.centre.body.float()[slot]
        return Answers(body[:, :0], slot, body / self.unit.float()[y, None])

    def projected(self, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return residuals r (n, d) in the axes of their classes y (n,): (n, m).

        Products are over all rows for each class that occurs: who else is of it decides nothing.
        """
        a = r.new_empty(len(r), self.axes)
        for k in torch.unique(y):
            rows = y == k
            a[rows] = rows_by(r, self.projection[k])[rows]
        return a


class FineCovarianceQuery(MomentQuery):
    """``fine_covariance``: how the fine structure of all images varies around class means.

    The coefficients above the band get one covariance for all classes: pooled over all records it
    is known well even at a small epsilon, and a classifier cannot mistake its noise for a class. A
    record answers the outer product r rᵀ of its half-whitened residual in those coefficients.

    The vector is the whole matrix, flattened, so that rounding r to integers is enough: r rᵀ is
    then a matrix of integers whose norm is the integer |r|², and a sum of them is one matrix
    product, exact in float64 whatever its order.
    """

    needed = frozenset({"mixture.mean", "mixture.texture"})

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.band, self.side = model.scales.band, model.scales.fine_band
        self.whitening = nn.Buffer(model.scales.fine_whitening())
        self.mean = nn.Buffer(model.tensor("mixture.mean"))
        prior = model.scales.fine_prior(model.tensor("mixture.texture"))
        trace = float((prior.diagonal()[: self.side] * self.whitening**2).sum())
        self.unit = model.config.mixture.fine_covariance_clip_norm**2 * trace
        self.keep_sums(
            Sums(*torch.zeros(2)), Sums(*torch.full((2,), self.unit, dtype=torch.float64))
        )

    @classmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """See `MomentQuery`.

        Raises
        ------
        ConfigError
            If there are no such coefficients.
        """
        side = config.scales.fine_band
        if not side:
            raise ConfigError(
                "mixture.fine_band is 0.", "Set model.mixture.fine_band, for instance 640."
            )
        return Layout(0, 1, side**2)

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
