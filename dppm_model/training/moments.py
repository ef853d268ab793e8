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
from dppm_model.score.closed_form import class_weights, fine_covariance
from dppm_model.score.matrices import clip_eigenvalues, symmetric, upper
from dppm_model.score.model import ScoreModel
from dppm_model.score.moments import (
    ComponentCovarianceQuery,
    CovarianceQuery,
    FineCovarianceQuery,
    MeansQuery,
)
from dppm_model.training.shrinkage import octaves, shrink_covariance, wiener

_LEAST_WEIGHT = 0.2  # a class weight is at least this much of an equal share
_LEAST_TEXTURE = 0.02  # of the prior's variance
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
        """Shrink towards what was known: all classes' common step, and each class's from it."""
        frequency = (centre.head + moved.head).clamp(min=_LEAST_WEIGHT / query.slots)
        mean = centre.body + moved.body / frequency[:, None]
        noise = (std * query.scale.body * query.slots) ** 2  # of a class of the average size
        shell = octaves(self._start.scales.std)
        share = frequency / frequency.sum()
        before = query.centre.body
        step = mean - before.double()
        common = (share @ step)[None]
        step = wiener(common, noise / query.slots, shell) + wiener(step - common, noise, shell)
        mean = before + step
        components = self._start.tensor("mixture.components")
        components = components + (mean - before)[:, None, : components.shape[2]]
        return {
            "mixture.class_weights": share,
            "mixture.mean": mean,
            "mixture.components": components,
        }


class CovarianceLearner(MomentLearner[CovarianceQuery]):
    """Covariances of the classes, within their components, and the texture of all images."""

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Let components share the covariance of their class."""
        return shared(model)

    def fit(self, query: CovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Clean the spectra; what noise covers gets the shape of the textured prior."""
        smooth = torch.zeros((1, query.basis.size), dtype=torch.float64)
        smooth[0, : query.head] = centre.head + moved.head
        texture = query.basis.inverse(smooth)[0].clamp(min=_LEAST_TEXTURE)
        frequency = torch.from_numpy(class_weights(self._start.arrays))
        whitened = symmetric(centre.body + moved.body / frequency[:, None], query.band)
        noise = std / math.sqrt(2) * query.scale.body / frequency  # off the diagonal
        w = query.whitening
        prior = self._prior(texture) * w * w[:, None]
        cleaned = map(shrink_covariance, whitened, noise.tolist(), prior)
        covariance = torch.stack(list(cleaned)) / w / w[:, None]
        return {"mixture.covariance": covariance, "mixture.texture": texture}

    def _prior(self, texture: torch.Tensor) -> torch.Tensor:
        """Return the shape of what noise covers (classes, d, d), from public records or none."""
        if self._start.config.public is not None:
            return self._start.tensor("mixture.covariance").double()
        prior = self._start.scales.modulated_prior(texture, slice(self._start.scales.band))
        return prior.expand(self._start.classes, -1, -1)


class ComponentCovarianceLearner(MomentLearner[ComponentCovarianceQuery]):
    """Each component's covariance beside that of its class, in the axes of the class."""

    def prepare(self, model: ScoreModel) -> ScoreModel:
        """Give all components their class's covariance, in its principal axes."""
        scales = model.scales
        covariance = model.tensor("mixture.covariance").double()
        axes = principal_axes(covariance, scales.half_whitening(scales.band), scales.principal_axes)
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
        shell = _shells(query.axes)
        own = wiener((difference - mean[:, None]).flatten(0, 1), noise, shell).view(shape)
        total = own + wiener(mean, noise_of_mean, shell)[:, None]
        each = query.std.repeat_interleave(query.components_each, 0)
        relative = symmetric(total.flatten(0, 1), query.axes) / each[:, :, None] / each[:, None]
        triangles = upper(clip_eigenvalues(relative, _LEAST - 1, _MOST - 1)).view(shape)
        return {"mixture.component_covariance": triangles}


class FineCovarianceLearner(MomentLearner[FineCovarianceQuery]):
    """One covariance of the fine coefficients, for all classes."""

    def query(self) -> FineCovarianceQuery:
        """Ask the same question each round."""
        return self._question(self._start)

    def fit(self, query: FineCovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        """Both triangles carry noise of their own: their mean has half its variance."""
        del centre  # nothing
        w, side = query.whitening, query.side
        matrix = moved.body.reshape(side, side)
        prior = (
            fine_covariance(self._start.scales, self._start.arrays)[:side, :side] * w * w[:, None]
        )
        noise = std / math.sqrt(2) * query.unit
        covariance = shrink_covariance((matrix + matrix.T) / 2, noise, prior) / w / w[:, None]
        return {"mixture.fine_covariance": upper(covariance[None])[0]}


def shared(model: ScoreModel) -> ScoreModel:
    """Return the model without what told its components' covariances from their class's."""
    return model.without("mixture.principal_axes", "mixture.component_covariance")


def _shells(axes: int) -> torch.Tensor:
    """Number the entries of an upper triangle by the octaves of their two axes' ranks, int64."""
    octave = torch.log2(torch.arange(axes) + 1.0).long()
    rows, columns = torch.triu_indices(axes, axes)
    return octave[rows] * (math.ceil(math.log2(axes + 1)) + 1) + octave[columns]


def principal_axes(covariance: torch.Tensor, whitening: torch.Tensor, count: int) -> torch.Tensor:
    """Return A (..., d, m): the m axes of largest variance, each as long as its deviation.

    Parameters
    ----------
    covariance
        (..., d, d) positive semi-definite.
    whitening
        (d,) weights under which variances are compared.
    """
    w = whitening
    values, vectors = torch.linalg.eigh(covariance * w * w[:, None])
    values, vectors = values.flip(-1)[..., :count], vectors.flip(-1)[..., :count]
    least = 1e-6 * values[..., :1]
    axes: torch.Tensor = vectors * values.maximum(least).sqrt()[..., None, :] / w[:, None]
    return axes
