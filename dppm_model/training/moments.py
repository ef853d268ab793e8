"""Learners of the closed form: what sums of moments make of a Gaussian mixture.

Each averages its rounds and fits the model to them. Whatever is released is shrunk by what it is
worth beside its noise (`dppm_model.training.shrinkage`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.class_sums import MomentQuery, Sums
from dppm_model.score.closed_form import class_weights
from dppm_model.score.matrices import clip_eigenvalues, symmetric, upper
from dppm_model.score.mixture_config import half_whitening
from dppm_model.score.model import ScoreModel
from dppm_model.score.moments import (
    ComponentCovarianceQuery,
    CovarianceQuery,
    MeansQuery,
    PooledCovarianceQuery,
    VariancesQuery,
)
from dppm_model.training.shrinkage import (
    octaves,
    shell_means,
    shrink_covariance,
    shrink_difference,
    wiener,
)

_LEAST_WEIGHT = 0.2  # a class weight is at least this much of an equal share
_LEAST_SHELL = 1e-3  # variance of an octave over the prior's, in units of the largest such ratio
_LEAST_RATIO = 0.1  # variance of a coefficient over that of its octave
_LEAST_AXIS = 0.05  # variance of a class in an axis, over that of all classes
_LEAST, _MOST = 0.1, 4.0  # times the class's variance, in any direction of a component
_LEAST_COUNT = 1e-4  # share of all records: of smaller components nothing is learned

Question = TypeVar("Question", bound=MomentQuery)
Arrays = Mapping[str, torch.Tensor]


class MomentLearner(ABC, Generic[Question]):
    """Averages a phase's rounds and fits the model to them; see `dppm_model.training.learner`."""

    def __init__(self, question: type[Question], model: ScoreModel, seed: int = 0) -> None:
        del seed  # nothing is drawn
        self._question = question
        self._start = self._model = self.prepare(model)
        self._rounds = 0
        self._variance = 0.0  # sum over the rounds of the noise variance of an estimate
        zeros = torch.zeros(self.query().dimension, dtype=torch.float64)
        self._centre, self._moved = zeros, zeros.clone()  # sums over the rounds

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Return the model that the first round asks by."""
        return model

    def query(self) -> Question:
        """Ask around what the model holds by now."""
        return self._question(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Add a round: a statistic's mean is its centre, and what was answered in its units."""
        query = self.query()
        self._rounds += 1
        self._variance += std**2
        self._centre += query.join(query.centre)
        self._moved += torch.from_numpy(estimate) * query.join(query.scale)
        self._model = self._fitted()

    def _fitted(self) -> ScoreModel:
        query = self._question(self._start)
        centre, moved = (query.split(t / self._rounds) for t in (self._centre, self._moved))
        std = math.sqrt(self._variance) / self._rounds
        return self._start.released(self.fit(query, centre, moved, std))

    @abstractmethod
    def fit(self, query: Question, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Return the arrays that the rounds have taught.

        Parameters
        ----------
        query
            The first round's.
        centre
            What the model held of the statistics, mean of the rounds.
        moved
            Estimate of the mean, over all records, of what they answered: the statistic of each
            less the centre, zero in all slots but its own.
        std
            Noise of a coordinate of ``moved`` over its scale.
        """

    def result(self) -> ScoreModel:
        """Return the model of the rounds so far."""
        return self._model

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return the sums over the rounds."""
        sums = {"centre": self._centre.numpy().copy(), "moved": self._moved.numpy().copy()}
        return {"rounds": np.array(self._rounds), "variance": np.array(self._variance), **sums}

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict`` of a learner that began with the same model."""
        self._rounds, self._variance = int(state["rounds"]), float(state["variance"])
        self._centre, self._moved = (
            torch.tensor(state[name], dtype=torch.float64) for name in ("centre", "moved")
        )
        self._model = self._fitted() if self._rounds else self._start


class MeansLearner(MomentLearner[MeansQuery]):
    """Class frequencies and class means; components move with the mean of their class."""

    def fit(self, query: MeansQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Shrink towards what was known: all classes' common step, and each class's from it.

        Beyond the band there is only the common step. The noise of a class mean is one pattern in
        all images of the class, and no variance there is known well enough to hide it: classifiers
        would learn it in place of the class.
        """
        frequency = (centre.head + moved.head).clamp(min=_LEAST_WEIGHT / query.slots)
        mean = centre.body + moved.body / frequency[:, None]
        noise = (std * query.scale.body * query.slots) ** 2  # of a class of the average size
        shell = octaves(self._start.scales.std, self._start.scales.basis.channel)
        share = frequency / frequency.sum()
        before = query.centre.body.double()
        step = mean - before
        common = (share @ step)[None]
        own = wiener(step - common, noise, shell)
        own[:, self._start.scales.band :] = 0
        step = wiener(common, noise / query.slots, shell) + own
        return {"mixture.class_weights": share, "mixture.mean": before + step}


class VariancesLearner(MomentLearner[VariancesQuery]):
    """The variance of each coefficient within the classes."""

    def query(self) -> VariancesQuery:
        """Ask the same question each round: answers are in units of the variances asked by."""
        return self._question(self._start)

    def fit(self, query: VariancesQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Shrink towards the means of half octaves; the axes scale along."""
        before = query.variance.double()
        ratio = (centre.body + moved.body)[0]
        noise = (std * query.scale.body) ** 2
        shell = octaves(self._start.scales.std, self._start.scales.basis.channel)
        level = shell_means(ratio, shell)
        level = level.clamp(min=_LEAST_SHELL * max(float(level.max()), _LEAST_SHELL))
        ratio = level + wiener((ratio - level)[None], noise, shell)[0]
        variance = before * ratio.maximum(_LEAST_RATIO * level)
        axes = self._start.tensor("mixture.axes").double()
        d = len(axes)
        scale = (variance[:d] @ axes**2) / (before[:d] @ axes**2)
        along = scale[: self._start.scales.axes].sqrt()
        return {
            "mixture.variance": variance,
            "mixture.axis_variance": self._start.tensor("mixture.axis_variance") * scale,
            "mixture.covariance": self._start.tensor("mixture.covariance") * along * along[:, None],
            "mixture.components": self._start.tensor("mixture.components") * along,
        }


class PooledCovarianceLearner(MomentLearner[PooledCovarianceQuery]):
    """The pooled covariance of the band, and with it the axes."""

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Let components share the covariance of their class."""
        return shared(model)

    def query(self) -> PooledCovarianceQuery:
        """Ask the same question each round."""
        return self._question(self._start)

    def fit(self, query: PooledCovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Clean the spectrum; turn what tells the classes apart into the new axes.

        Both triangles carry noise of their own: their mean has half its variance.
        """
        del centre  # nothing
        w, side, rank = query.whitening, query.side, self._start.scales.axes
        matrix = moved.body.reshape(side, side)
        noise = std / math.sqrt(2) * query.unit
        before = self._start.tensor("mixture.axes").double()
        prior = (before * self._start.tensor("mixture.axis_variance")) @ before.T
        cleaned = shrink_covariance((matrix + matrix.T) / 2, noise, prior * w * w[:, None])
        axes, variance = principal_basis(cleaned / w / w[:, None], w, rank)
        turn = before[:, :rank].T @ axes[:, :rank]
        held = self._start.tensor("mixture.axis_variance")[:rank].double()
        own = self._start.tensor("mixture.covariance").double() - torch.diag(held)
        deviation = variance[:rank].sqrt()
        relative = turn.T @ own @ turn / deviation / deviation[:, None] + torch.eye(
            rank, dtype=own.dtype
        )
        relative = clip_eigenvalues(relative, _LEAST_AXIS, 1 / _LEAST_AXIS)
        return {
            "mixture.axes": axes,
            "mixture.axis_variance": variance,
            "mixture.covariance": relative * deviation * deviation[:, None],
            "mixture.components": self._start.tensor("mixture.components").double() @ turn,
        }


class CovarianceLearner(MomentLearner[CovarianceQuery]):
    """Covariances of the classes in the axes, within their components."""

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Let components share the covariance of their class."""
        return shared(model)

    def fit(self, query: CovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Keep, of each class's difference from what was known, what its own noise does not cover.

        A class of few records has much noise: it keeps the pooled covariance, but for its size.
        """
        frequency = torch.from_numpy(class_weights(self._start.arrays))
        rank = len(query.whitening)
        whitened = symmetric(centre.body + moved.body / frequency[:, None], rank)
        known = symmetric(query.centre.body.double(), rank)
        noise = std / math.sqrt(2) * query.scale.body / frequency  # off the diagonal
        cleaned = torch.stack(
            [
                shrink_difference(matrix, held, float(deviation), _LEAST_AXIS)
                for matrix, held, deviation in zip(whitened, known, noise, strict=True)
            ]
        )
        return {"mixture.covariance": cleaned / query.whitening / query.whitening[:, None]}


class ComponentCovarianceLearner(MomentLearner[ComponentCovarianceQuery]):
    """Each component's covariance beside that of its class, in the axes of the class."""

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Give all components their class's covariance, in its principal axes."""
        scales = model.scales
        covariance = model.tensor("mixture.covariance").double()
        std = model.tensor("mixture.axis_variance")[: scales.axes].double().sqrt()
        axes = principal_axes(covariance, half_whitening(std), scales.principal_axes)
        _, slots, body = self._question.layout(model.config)
        same = torch.zeros(model.classes, slots // model.classes, body)
        return shared(model).released(
            {"mixture.principal_axes": axes, "mixture.component_covariance": same}
        )

    def fit(self, query: ComponentCovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Shrink classes' mean differences, and each component's difference to that mean."""
        shape = (self._start.classes, query.components_each, -1)
        weights = query.weights.double()[:, :, None]
        share = self._start.tensor("mixture.class_weights")[:, None] * query.weights
        count = share.flatten().double().clamp(min=_LEAST_COUNT)[:, None]
        noise = ((std * query.scale.body / count) ** 2).expand_as(moved.body)
        difference = (centre.body + moved.body / count - query.centre.body).view(shape)
        mean = (weights * difference).sum(1)
        noise_of_mean = (weights**2 * noise.reshape(shape)).sum(1)
        shell = _shells(query.principal_axes)
        own = wiener((difference - mean[:, None]).flatten(0, 1), noise, shell).view(shape)
        total = own + wiener(mean, noise_of_mean, shell)[:, None]
        each = query.class_std.repeat_interleave(query.components_each, 0)
        relative = (
            symmetric(total.flatten(0, 1), query.principal_axes) / each[:, :, None] / each[:, None]
        )
        triangles = upper(clip_eigenvalues(relative, _LEAST - 1, _MOST - 1)).view(shape)
        return {"mixture.component_covariance": triangles}


def shared(model: ScoreModel) -> ScoreModel:
    """Return the model without what told its components' covariances from their class's."""
    return model.without("mixture.principal_axes", "mixture.component_covariance")


def _shells(axes: int) -> torch.Tensor:
    """Number the entries of an upper triangle by the octaves of their two axes' ranks, int64."""
    octave = torch.log2(torch.arange(axes) + 1.0).long()
    rows, columns = torch.triu_indices(axes, axes)
    return octave[rows] * (math.ceil(math.log2(axes + 1)) + 1) + octave[columns]


def principal_axes(covariance: torch.Tensor, whitening: torch.Tensor, count: int) -> torch.Tensor:
    """Return A (..., r, m): the m axes of largest variance, each as long as its deviation.

    Parameters
    ----------
    covariance
        (..., r, r) positive semi-definite.
    whitening
        (r,) weights under which variances are compared.
    """
    w = whitening
    values, vectors = torch.linalg.eigh(covariance * w * w[:, None])
    values, vectors = values.flip(-1)[..., :count], vectors.flip(-1)[..., :count]
    least = 1e-6 * values[..., :1]
    axes: torch.Tensor = vectors * values.maximum(least).sqrt()[..., None, :] / w[:, None]
    return axes


def principal_basis(
    covariance: torch.Tensor, whitening: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return orthonormal axes (d, d) of a covariance (d, d), and its variances along them (d,).

    The first ``rank`` span its directions of largest variance under the weights ``whitening``; the
    others are the complement. Both parts are in their own principal axes.
    """
    w = whitening
    _, vectors = torch.linalg.eigh(covariance * w * w[:, None])
    basis, _ = torch.linalg.qr(vectors.flip(-1)[:, :rank] / w[:, None], mode="complete")
    parts = [basis[:, :rank], basis[:, rank:]]
    axes, variance = [], []
    for part in parts:
        values, turn = torch.linalg.eigh(part.T @ covariance @ part)
        axes.append(part @ turn.flip(-1))
        variance.append(values.flip(-1))
    return torch.cat(axes, dim=1), torch.cat(variance)
