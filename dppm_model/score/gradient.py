"""The ``score`` phase: private gradient steps of the residual network.

A record answers the gradient of its denoising loss, scaled so that the plan's clip norm is 1. The
scale is public: it comes from images drawn from the closed form that was released before, never
from records. The server takes the noisy mean gradient to Adam.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.mechanism.chunks import fixed_chunks
from dppm_model.mechanism.gradients import (
    CHUNK,
    clipped_sum,
    per_record,
    require_separate_records,
)
from dppm_model.mechanism.grid import Grid
from dppm_model.score.loss import denoising_losses, questions
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.networks import build_network, first_weights, set_weights
from dppm_model.score.residual_config import ResidualConfig

_BETA1, _BETA2, _TINY = 0.9, 0.99, 1e-12  # Adam (Kingma and Ba 2015)
_PUBLIC_RECORDS = 256  # images of the closed form that set the gradient scale
_RESCALE = 10  # rounds between two looks at the gradient scale
_LEAST_RATE = 0.1  # of the learning rate, at the end of the cosine


_closed_form: dict[bytes, Mixture] = {}  # the last one used


def closed_form(model: ScoreModel) -> Mixture:
    """Return the model's mixture, built once for all rounds of a phase.

    Every round brings a new model with the same closed form, whose eigen-decompositions take as
    long as the gradients of a hundred records.
    """
    digest = hashlib.sha256()
    for name in sorted(model.arrays):
        if name.startswith("mixture."):
            digest.update(model.arrays[name].tobytes())
    key = digest.digest()
    if key not in _closed_form:
        _closed_form.clear()
        _closed_form[key] = model.mixture
    return _closed_form[key]


class GradientQuery:
    """A record's scaled gradient; see `dppm_model.score.query.Query`."""

    def __init__(self, model: ScoreModel) -> None:
        self._model = model
        self.config = ResidualConfig.from_dict(model.meta.get("residual", {}))
        self.band, self.network = build_network(self.config, model.shape, model.classes)
        if "residual.weights" in model.arrays:  # before the phase only `dimension` can be asked
            set_weights(self.network, model.arrays["residual.weights"])

    @cached_property
    def mixture(self) -> Mixture:
        """The closed form below the network."""
        return closed_form(self._model)

    @property
    def scale(self) -> float:
        """What a gradient is multiplied with before it is clipped."""
        return self._model.arrays["residual.scale"].item()  # type: ignore[no-any-return]

    @property
    def dimension(self) -> int:
        """Number of weights d."""
        return sum(p.numel() for p in self.network.parameters())

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> NDArray[np.int64]:
        """Sum the records' clipped gradients; see `dppm_model.score.query.Query`."""
        total = np.zeros(self.dimension, dtype=np.int64)
        for chunk in fixed_chunks((x, y, seeds), CHUNK):
            inputs = self.questions(*chunk)
            total += clipped_sum(self.network, denoising_losses, inputs, grid, self.scale)
        return total

    def clipped_rows(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the records' clipped gradients; see `dppm_model.score.query.Query`."""
        left = len(x)
        for chunk in fixed_chunks((x, y, seeds), CHUNK):
            rows = per_record(self.network, denoising_losses, self.questions(*chunk)) * self.scale
            yield grid.quantise(rows[:left]).to(torch.int64).numpy()
            left -= len(rows)

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records; see `dppm_model.score.loss.questions`."""
        return questions(x, y, self.mixture, self.band, self.config, seeds)


class GradientLearner:
    """Adam on the private gradient; see `dppm_model.score.query.Learner`.

    Parameters
    ----------
    model
        The closed form, and weights if an earlier ``score`` phase left some.
    seed
        Seed of the first weights and of the images that set the gradient scale.

    Raises
    ------
    ModelError
        If the network mixes records.
    """

    def __init__(self, model: ScoreModel, seed: int) -> None:
        self._seed = seed
        self.config = ResidualConfig.from_dict(model.meta.get("residual", {}))
        meta = {**model.meta, "residual": self.config.to_dict()}
        arrays = dict(model.arrays)
        if "residual.weights" not in arrays:
            network = build_network(self.config, model.shape, model.classes)[1]
            arrays["residual.weights"] = first_weights(network, seed).numpy()
            arrays["residual.ema"] = arrays["residual.weights"]
        arrays["residual.scale"] = np.ones(1)
        self._model = ScoreModel(meta, arrays)
        d = len(arrays["residual.weights"])
        self._round = 0
        self._first_moment, self._second_moment = np.zeros(d), np.zeros(d)
        query = self.query()
        require_separate_records(query.network, denoising_losses, self._public(query, 4))
        self._rescale()

    def query(self) -> GradientQuery:
        """Ask for the gradient at the present weights."""
        return GradientQuery(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Take one step of Adam, and one of the moving average."""
        arrays = self._model.arrays
        gradient = estimate / arrays["residual.scale"].item()
        self._round += 1
        t = self._round
        self._first_moment = _BETA1 * self._first_moment + (1 - _BETA1) * gradient
        self._second_moment = _BETA2 * self._second_moment + (1 - _BETA2) * gradient**2
        mean = self._first_moment / (1 - _BETA1**t)
        root = np.sqrt(self._second_moment / (1 - _BETA2**t))
        step = self.learning_rate(t) * mean / (root + _TINY)
        weights = arrays["residual.weights"] - step.astype(np.float32)
        keep = min(self.config.ema, t / (t + 9))  # a young average forgets faster
        average = keep * arrays["residual.ema"] + (1 - keep) * weights
        self._model = self._model.replace(
            {"residual.weights": weights, "residual.ema": average.astype(np.float32)}
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
        """Set the gradient scale from images of the closed form, at the present weights."""
        query = self.query()
        rows = per_record(query.network, denoising_losses, self._public(query, _PUBLIC_RECORDS))
        median = float(torch.linalg.vector_norm(rows, dim=1).median())
        scale = np.array([1 / (self.config.clip_share * median)])
        self._model = self._model.replace({"residual.scale": scale})

    def _public(self, query: GradientQuery, n: int) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self._seed + self._round)
        y = torch.arange(n) % self._model.classes
        x = query.mixture.sample(y, generator).clamp(-1, 1)
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
            **{name: self._model.arrays[f"residual.{name}"] for name in names},
        }

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict`` of a learner that began with the same model."""
        self._round = int(state["round"])
        self._first_moment = np.array(state["first_moment"], dtype=np.float64)
        self._second_moment = np.array(state["second_moment"], dtype=np.float64)
        names = ("weights", "ema", "scale")
        self._model = self._model.replace({f"residual.{name}": state[name] for name in names})
