"""Gradient phases: private gradient steps of a network, whichever one it is.

A record answers the gradient of its own loss, scaled so that the plan's clip norm is 1. The scale
is public: it comes from images that were made from what was released before, or from nothing, never
from records. The server takes the noisy mean gradient to Adam.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.gradients import (
    CHUNK,
    Losses,
    clipped_sum,
    per_record,
    require_separate_records,
    trainable,
)
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.arrays import array_specs
from dppm_model.score.closed_form import closed_form
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import LATER, ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import set_weights

_BETA1, _BETA2, _TINY = 0.9, 0.99, 1e-12  # Adam (Kingma and Ba 2015)
_PUBLIC_RECORDS = 256  # public images that set the gradient scale
_RESCALE = 10  # rounds between two looks at the gradient scale
_LEAST_RATE = 0.1  # of the learning rate, at the end of the cosine


class Training(Protocol):
    """Settings that every gradient phase has; see `dppm_model.score.residual_config`."""

    @property
    def clip_share(self) -> float:
        """Clip norm over the median gradient norm on public images."""
        ...

    @property
    def learning_rate(self) -> float:
        """Adam's rate at its height."""
        ...

    @property
    def warmup(self) -> int:
        """Rounds it rises for."""
        ...

    @property
    def rounds(self) -> int:
        """Rounds until it has fallen to its least."""
        ...

    @property
    def ema(self) -> float:
        """Decay of the moving average of the weights."""
        ...


class GradientQuery(ABC):
    """A record's scaled gradient; see `dppm_model.score.query.Query`.

    Attributes
    ----------
    part
        What the network's arrays are called in the model: ``part.weights``, ``part.ema``, ...
    losses
        Its loss of each record.
    config
        The settings of its training.
    """

    part: ClassVar[str]
    losses: ClassVar[Losses]
    chunk = CHUNK
    needed: ClassVar[frozenset[str]]
    optional: ClassVar[frozenset[str]] = LATER
    config: Training

    def __init__(self, model: ScoreModel) -> None:
        model.require(self.needed)
        self.model = model
        self.network = self.build(model)
        set_weights(self.network, model.arrays[f"{self.part}.weights"])

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return the number of weights that are trained; see `dppm_model.score.query.Query`."""
        return array_specs(config)[f"{cls.part}.weights"].shape[0]

    @abstractmethod
    def build(self, model: ScoreModel) -> nn.Module:
        """Build the network, its trained weights unset, and set ``config``."""

    @classmethod
    @abstractmethod
    def first(cls, model: ScoreModel, seed: int) -> dict[str, NDArray[np.float32]]:
        """Return the arrays that training begins with, ``part.weights`` among them; all public."""

    @cached_property
    def mixture(self) -> Mixture:
        """The closed form below the network."""
        return closed_form(self.model)

    @abstractmethod
    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Look at records; see `dppm_model.score.query.Query`."""

    @abstractmethod
    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records: the inputs of ``losses``."""

    @abstractmethod
    def public(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Make images (as `view` gives them) and labels (n,) that are nobody's."""

    @property
    def scale(self) -> float:
        """What a gradient is multiplied with before it is clipped."""
        return self.model.arrays[f"{self.part}.scale"].item()  # type: ignore[no-any-return]

    @property
    def dimension(self) -> int:
        """Number of weights d that are trained."""
        return sum(p.numel() for p in trainable(self.network).values())

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the records' clipped gradients; see `dppm_model.score.query.Query`."""
        total = np.zeros(self.dimension, dtype=np.int64)
        for chunk in fixed_batches((x, y, seeds), CHUNK):
            inputs = self.questions(*chunk)
            total += clipped_sum(self.network, type(self).losses, inputs, grid, self.scale)
        return total

    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the records' scaled gradients; see `dppm_model.score.query.Query`."""
        left = len(x)
        for chunk in fixed_batches((x, y, seeds), CHUNK):
            found = per_record(self.network, type(self).losses, self.questions(*chunk))
            yield (found * self.scale)[:left]
            left -= len(found)


class GradientLearner:
    """Adam on the private gradient; see `dppm_model.score.query.Learner`.

    Parameters
    ----------
    kind
        The question.
    model
        What was released before, with the network's weights if an earlier phase left some.
    seed
        Seed of the first weights and of the images that set the gradient scale.

    Raises
    ------
    ModelError
        If the network mixes records.
    """

    def __init__(self, kind: type[GradientQuery], model: ScoreModel, seed: int) -> None:
        self._kind, self._part, self._seed = kind, kind.part, seed
        arrays = dict(model.arrays)
        if f"{self._part}.weights" not in arrays:
            arrays |= kind.first(model, seed)
            arrays[f"{self._part}.ema"] = arrays[f"{self._part}.weights"]
        arrays[f"{self._part}.scale"] = np.ones(1)
        self._model = model.replace(arrays)
        d = len(arrays[f"{self._part}.weights"])
        self._round = 0
        self._first_moment, self._second_moment = np.zeros(d), np.zeros(d)
        query = self.query()
        self.config = query.config
        require_separate_records(query.network, kind.losses, self._public(query, 4))
        self._rescale()

    def query(self) -> GradientQuery:
        """Ask for the gradient at the present weights."""
        return self._kind(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Take one step of Adam, and one of the moving average."""
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
        rows = per_record(query.network, self._kind.losses, self._public(query, _PUBLIC_RECORDS))
        median = float(torch.linalg.vector_norm(rows, dim=1).median())
        scale = np.array([1 / (self.config.clip_share * median)]) if median else np.ones(1)
        self._model = self._model.released({f"{self._part}.scale": scale})

    def _public(self, query: GradientQuery, n: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self._seed + self._round)
        x, y = query.public(n, generator)
        return query.questions(x, y, torch.randint(2**63 - 1, (n,), generator=generator))

    def result(self) -> ScoreModel:
        """Return the model: weights to ask at, and their moving average to sample with."""
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
        """Go on from ``state_dict`` of a learner that began with the same model."""
        self._round = int(state["round"])
        self._first_moment = np.array(state["first_moment"], dtype=np.float64)
        self._second_moment = np.array(state["second_moment"], dtype=np.float64)
        names = ("weights", "ema", "scale")
        self._model = self._model.replace({f"{self._part}.{name}": state[name] for name in names})
