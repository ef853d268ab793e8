"""Learners of networks: Adam on private gradients.

The factor applied to a gradient before it is clipped is computed from images drawn from earlier
releases, or from drawn shapes, never from records.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ModelError
from dppm_model.mechanism.gradients import Losses, per_record, trainable
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.networks import first_weights
from dppm_model.score.pretrained import PretrainedConfig
from dppm_model.score.pretrained_query import FineTuningQuery
from dppm_model.score.pyramid import PyramidConfig, build_upsampler
from dppm_model.score.pyramid_query import CroppedRecords, DetailQuery
from dppm_model.score.residual import ResidualConfig
from dppm_model.score.residual_query import ResidualQuery
from dppm_model.training.shapes import shape_crops

_BETA1, _BETA2, _TINY = 0.9, 0.99, 1e-12  # Adam (Kingma and Ba 2015)
_PUBLIC_RECORDS = 256  # public images that set the gradient scale
_RESCALE = 10  # rounds between updates of the gradient scale
_LEAST_RATE = 0.1  # of the learning rate, at the end of the cosine

Question = TypeVar("Question", bound=GradientQuery)
ClosedFormQuestion = TypeVar("ClosedFormQuestion", ResidualQuery, FineTuningQuery)
# Settings with a learning rate and the like.
Training = ResidualConfig | PretrainedConfig | PyramidConfig


class GradientLearner(ABC, Generic[Question]):
    """Adam on the private gradient; see `dppm_model.training.learner`.

    Parameters
    ----------
    question
        The class of the question.
    model
        The earlier releases, with the network's weights if an earlier phase left some.
    seed
        Seed of the first weights and of the images that set the gradient scale.

    Raises
    ------
    ModelError
        If the network mixes records.
    """

    def __init__(self, question: type[Question], model: ScoreModel, seed: int) -> None:
        self._question, self._part, self._seed = question, question.part, seed
        self.config = self.settings(model)
        arrays = dict(model.arrays)
        if f"{self._part}.weights" not in arrays:
            weights = self.first(model, seed)
            arrays |= {f"{self._part}.weights": weights, f"{self._part}.ema": weights}
        arrays[f"{self._part}.scale"] = np.ones(1)
        self._model = model.replace(arrays)
        d = len(arrays[f"{self._part}.weights"])
        self._round = 0
        self._first_moment, self._second_moment = np.zeros(d), np.zeros(d)
        query = self.query()
        require_separate_records(query.network, question.losses, self._public(query, 4))
        self._rescale()

    @staticmethod
    @abstractmethod
    def settings(model: ScoreModel) -> Training:
        """Return the settings of the training."""

    @staticmethod
    @abstractmethod
    def first(model: ScoreModel, seed: int) -> NDArray[np.float32]:
        """Return the weights (d,) that training begins with; public."""

    @abstractmethod
    def public(
        self, query: Question, n: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make public records, as the question's `view` returns them, and labels (n,)."""

    def query(self) -> Question:
        """Ask for the gradient at the present weights, on the model's device."""
        return self._question(self._model).to(self._model.device)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Take one step of Adam, and update the moving average."""
        arrays = self._model.arrays
        gradient = estimate / arrays[f"{self._part}.scale"].item()
        self._round += 1
        t = self._round
        self._first_moment = _BETA1 * self._first_moment + (1 - _BETA1) * gradient
        self._second_moment = _BETA2 * self._second_moment + (1 - _BETA2) * gradient**2
        mean = self._first_moment / (1 - _BETA1**t)
        root = np.sqrt(self._second_moment / (1 - _BETA2**t))
        step = self.learning_rate(t) * mean / (root + _TINY)
        weights = arrays[f"{self._part}.weights"] - step.astype(np.float32)
        keep = min(self.config.ema, t / (t + 9))  # a young average forgets faster
        average = keep * arrays[f"{self._part}.ema"] + (1 - keep) * weights
        self._model = self._model.released(
            {f"{self._part}.weights": weights, f"{self._part}.ema": average}
        )
        if t % _RESCALE == 0:
            self._rescale()

    def learning_rate(self, t: int) -> float:
        """Return the rate of step t = 1, 2, …: a linear rise, then a cosine down to a tenth."""
        c = self.config
        rest = min(1.0, max(0, t - c.warmup) / max(1, c.rounds - c.warmup))
        cosine = _LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * rest)) / 2
        return c.learning_rate * min(1.0, t / c.warmup) * cosine

    def _rescale(self) -> None:
        """Set the gradient scale from public images, at the present weights."""
        query = self.query()
        rows = per_record(
            query.network, self._question.losses, self._public(query, _PUBLIC_RECORDS)
        )
        median = float(torch.linalg.vector_norm(rows, dim=1).cpu().median())
        scale = np.array([1 / (self.config.clip_share * median)]) if median else np.ones(1)
        self._model = self._model.released({f"{self._part}.scale": scale})

    def _public(self, query: Question, n: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self._seed + self._round)
        x, y = self.public(query, n, generator)
        seeds = torch.randint(2**63 - 1, (n,), generator=generator)
        return query.questions(x.to(query.device), y.to(query.device), seeds)

    def result(self) -> ScoreModel:
        """Return the model: the present weights, and their moving average for sampling."""
        return self._model

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return weights, average, scale, Adam's moments and the round."""
        names = ("weights", "ema", "scale")
        return {
            "round": np.array(self._round),
            "first_moment": self._first_moment,
            "second_moment": self._second_moment,
            **{name: self._model.arrays[f"{self._part}.{name}"] for name in names},
        }

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from ``state_dict`` of a learner that began with the same model."""
        self._round = int(state["round"])
        self._first_moment = np.array(state["first_moment"], dtype=np.float64)
        self._second_moment = np.array(state["second_moment"], dtype=np.float64)
        names = ("weights", "ema", "scale")
        self._model = self._model.replace({f"{self._part}.{name}": state[name] for name in names})


class _ClosedFormImages(GradientLearner[ClosedFormQuestion]):
    """The gradient scale is set from images of the closed form."""

    def public(
        self, query: ClosedFormQuestion, n: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw images from the closed form."""
        y = torch.arange(n) % query.model.classes
        return query.mixture.sample(y, generator).clamp(-1, 1), y


class ResidualLearner(_ClosedFormImages[ResidualQuery]):
    """Trains the network on top of the closed form."""

    @staticmethod
    def settings(model: ScoreModel) -> Training:
        """See `GradientLearner`."""
        return model.config.part(ResidualConfig)

    @staticmethod
    def first(model: ScoreModel, seed: int) -> NDArray[np.float32]:
        """Draw the weights; those of the last layer are zero."""
        _, network = model.config.part(ResidualConfig).lay_out(model.shape, model.classes)
        weights: NDArray[np.float32] = first_weights(network, seed).numpy()
        return weights


class FineTuningLearner(_ClosedFormImages[FineTuningQuery]):
    """Trains the last layers of the pretrained network on."""

    @staticmethod
    def settings(model: ScoreModel) -> Training:
        """See `GradientLearner`."""
        return model.config.part(PretrainedConfig)

    @staticmethod
    def first(model: ScoreModel, seed: int) -> NDArray[np.float32]:
        """Begin with the weights that public images taught."""
        del seed  # one start for all runs
        network = model.config.part(PretrainedConfig).build(model.shape, model.arrays)
        return trained_weights(network)


class DetailLearner(GradientLearner[DetailQuery]):
    """Trains the upsampler, from weights pre-trained on drawn shapes."""

    @staticmethod
    def settings(model: ScoreModel) -> Training:
        """See `GradientLearner`."""
        return model.config.part(PyramidConfig)

    @staticmethod
    def first(model: ScoreModel, seed: int) -> NDArray[np.float32]:
        """Return the weights pre-trained on drawn shapes."""
        del seed  # one start for all runs
        network = build_upsampler(model.shape[0], model.arrays)
        return trained_weights(network)

    def public(
        self, query: DetailQuery, n: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw shapes."""
        shape = query.model.shape
        crops = shape_crops(n, query.config.stages, shape[0], generator)
        seen = CroppedRecords(crops, torch.zeros(n, *shape), torch.full((n, 2), -1))
        return seen.packed(), torch.zeros(n, dtype=torch.int64)


def trained_weights(network: nn.Module) -> NDArray[np.float32]:
    """Return the weights (d,) of a network that rounds train."""
    trained = torch.cat([p.flatten() for p in trainable(network).values()])
    weights: NDArray[np.float32] = trained.detach().numpy()
    return weights


def require_separate_records(
    network: nn.Module, losses: Losses, inputs: Sequence[torch.Tensor]
) -> None:
    """Refuse a network in which one record's gradient depends on another record.

    Parameters
    ----------
    network, losses, inputs
        As for `dppm_model.mechanism.gradients.clipped_sum`, with at least two public records, for
        instance random ones.

    Raises
    ------
    ModelError
        If a layer is known to mix records or to keep statistics of them (Opacus' list), or if the
        gradient of the first record changes with the others.
    """
    from opacus.validators import ModuleValidator  # slow to import, and only needed here

    hint = "Use layers that see one record at a time (GroupNorm instead of BatchNorm)."
    if errors := ModuleValidator.validate(network):
        raise ModelError(f"The network cannot be trained under privacy: {errors[0]}.", hint)

    def first(*rows: torch.Tensor) -> torch.Tensor:
        loss = losses(network, *rows)[0]
        found = torch.autograd.grad(
            loss, list(trainable(network).values()), allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in found])

    alone, together = first(*(x[:1] for x in inputs)), first(*inputs)
    if not torch.allclose(alone, together, rtol=1e-3, atol=1e-5 * float(alone.abs().max())):
        raise ModelError("The network mixes records: one changes the gradient of another.", hint)
