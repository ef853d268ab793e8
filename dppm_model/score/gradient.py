"""The ``score`` phase: gradient rounds of the residual network."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as f

from dppm_model.mechanism.gradients import Gradients, refuse_mixing
from dppm_model.mechanism.grid import Grid
from dppm_model.score.model import ScoreModel
from dppm_model.score.residual import ResidualConfig, build

_CHUNK = 256  # records whose base denoiser is evaluated at once
_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.99, 1e-12
_CALIBRATION_IMAGES = 128


class GradientQuery:
    """A record's vector: the gradient of its denoising loss, averaged over K noise draws."""

    def __init__(self, model: ScoreModel) -> None:
        self.model = model
        self.config = ResidualConfig.from_dict(model.meta.get("residual", {}))
        self.scale = float(model.arrays.get("residual.scale", np.ones(1))[0])

    @cached_property
    def gradients(self) -> Gradients:
        """The network's per-record gradients."""
        return build(self.model.shape, self.model.classes, self.model.meta.get("residual", {}))

    @property
    def weights(self) -> torch.Tensor:
        """The present weights (d,)."""
        stored = self.model.arrays.get("residual.weights")
        return self.gradients.flatten() if stored is None else torch.from_numpy(np.array(stored))

    @property
    def dimension(self) -> int:
        """Number of trainable parameters."""
        return self.gradients.dimension

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, generator: torch.Generator
    ) -> NDArray[np.int64]:
        """Sum the clipped integer gradients; see `Query`."""
        total = torch.zeros(self.dimension, dtype=torch.float64)
        flat = self.weights
        for records, labels in zip(torch.split(x, _CHUNK), torch.split(y, _CHUNK), strict=True):
            for vectors in self.gradients.per_record(flat, *self.draw(records, labels, generator)):
                total += grid.quantise(vectors * self.scale).sum(dim=0)
        return total.to(torch.int64).numpy()

    def draw(
        self, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, ...]:
        """Draw K noisy versions of each record and what the loss needs of them.

        Returns
        -------
        target, noisy, base (n, K, C, H, W), sigma (n, K), one-hot labels (n, classes).
        """
        n, draws = len(x), self.config.draws
        low, high = math.log(self.config.sigma_low), math.log(self.config.sigma_high)
        sigma = torch.exp(low + (high - low) * torch.rand(n * draws, generator=generator))
        clean = x.repeat_interleave(draws, dim=0)
        labels = y.repeat_interleave(draws)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = clean + sigma[:, None, None, None] * noise
        if n:
            base = self.model.mixture.denoise(noisy, sigma, labels)
            target = (clean - base) / self.model.posterior_std(sigma)
        else:
            base = target = noisy

        def grouped(t: torch.Tensor) -> torch.Tensor:
            return t.reshape(n, draws, *t.shape[1:])

        onehot = f.one_hot(y, self.model.classes).float()
        return grouped(target), grouped(noisy), grouped(base), grouped(sigma), onehot


class GradientLearner:
    """Adam on the estimated gradients, warm-up and cosine, averaged weights."""

    def __init__(self, model: ScoreModel, seed: int) -> None:
        query = GradientQuery(model)
        self._config = query.config
        self._check(query)
        weights = query.weights.double().numpy()
        self._model = model
        self._scale = self._calibrate(model, query, seed)
        self._round = 0
        self._weights, self._ema = weights.copy(), weights.copy()
        self._first, self._second = np.zeros_like(weights), np.zeros_like(weights)

    @staticmethod
    def _check(query: GradientQuery) -> None:
        shape, classes = query.model.shape, query.model.classes
        images = torch.randn((4, *shape), generator=torch.Generator().manual_seed(0))
        onehot = torch.eye(classes)[torch.zeros(4, dtype=torch.int64)]
        # The last layer starts at zero, so look at a network whose weights are all alive.
        alive = torch.randn(query.dimension, generator=torch.Generator().manual_seed(1)) / 10
        weights = query.gradients.unflatten(alive)

        def forward(index: torch.Tensor) -> torch.Tensor:
            inputs = (images[index], images[index], torch.ones(len(index)), onehot[index])
            out: torch.Tensor = torch.func.functional_call(query.gradients.module, weights, inputs)
            return out

        refuse_mixing(query.gradients.module, forward)

    @staticmethod
    def _calibrate(model: ScoreModel, query: GradientQuery, seed: int) -> float:
        """Choose the scale that brings the clip to `clip_share` of the median norm.

        Measured on images drawn from the released closed form, so it costs no privacy.
        """
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(_CALIBRATION_IMAGES) % model.classes
        x = model.mixture.sample(y, generator).clamp(-1, 1)
        flat = query.weights
        norms = [
            torch.linalg.vector_norm(v, dim=1)
            for v in query.gradients.per_record(flat, *query.draw(x, y, generator))
        ]
        return 1 / (query.config.clip_share * float(torch.cat(norms).median()))

    def query(self) -> GradientQuery:
        """Ask for gradients at the present weights."""
        return GradientQuery(self.result())

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """One step of Adam (Kingma and Ba 2015); ``std`` is not needed."""
        del std
        self._round += 1
        t = self._round
        self._first = _BETA1 * self._first + (1 - _BETA1) * estimate
        self._second = _BETA2 * self._second + (1 - _BETA2) * estimate**2
        first = self._first / (1 - _BETA1**t)
        second = self._second / (1 - _BETA2**t)
        progress = min(1.0, t / self._config.rounds)
        rate = self._config.learning_rate * min(1.0, t / self._config.warmup)
        rate *= 0.55 + 0.45 * math.cos(math.pi * progress)
        self._weights = self._weights - rate * first / (np.sqrt(second) + _ADAM_EPS)
        keep = min(self._config.ema, t / (t + 1))
        self._ema = keep * self._ema + (1 - keep) * self._weights

    def result(self) -> ScoreModel:
        """Return the model with the present and the averaged weights."""
        return self._model.replace(
            {
                "residual.weights": self._weights.astype(np.float32),
                "residual.ema": self._ema.astype(np.float32),
                "residual.scale": np.array([self._scale], dtype=np.float32),
            }
        )

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return weights, moments and the round."""
        return {
            "round": np.array(self._round),
            "weights": self._weights.copy(),
            "ema": self._ema.copy(),
            "first": self._first.copy(),
            "second": self._second.copy(),
        }

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict`` of a learner that began with the same model and seed."""
        self._round = int(state["round"])
        self._weights, self._ema, self._first, self._second = (
            np.array(state[name], dtype=np.float64)
            for name in ("weights", "ema", "first", "second")
        )
