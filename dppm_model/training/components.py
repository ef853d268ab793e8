"""The learner of the components: private Lloyd rounds split each class into J of them.

Each round moves the centres. What they explain is taken off the class covariance that was released
before, so class mean and covariance stay as released.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.closed_form import covariances
from dppm_model.score.model import ScoreModel
from dppm_model.score.moments import ComponentsQuery
from dppm_model.training.moments import shared
from dppm_model.training.shrinkage import subtract_covariance

_FIRST_SPREAD = 0.7  # of the first centres, in standard deviations of the class
_SEEN = 2.0  # a component counts if its count is above this many standard deviations of noise


class ComponentsLearner:
    """Moves the centres round by round; see `dppm_model.training.learner`."""

    def __init__(self, question: type[ComponentsQuery], model: ScoreModel, seed: int) -> None:
        self._question, self._start = question, shared(model)
        self._seed = seed
        self._rounds = 0
        self._total = _total_covariance(model)
        centres = torch.from_numpy(model.arrays["mixture.components"]).double()
        weights = torch.from_numpy(model.arrays["mixture.component_weights"]).double()
        if not centres.any():  # else those that are there go on
            centres = self._draw(0)
            weights = torch.full(centres.shape[:2], 1 / centres.shape[1], dtype=torch.float64)
        self._model = self._with(centres, weights)

    def query(self) -> ComponentsQuery:
        """Ask around the present centres."""
        return self._question(self._model)

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Move each centre to the mean of its records, as far as that mean is known.

        The posterior mean under mu_kj ~ N(m_k, class covariance) and the known noise; a component
        too small to be seen is drawn again from that prior and has no weight until it wins records.
        """
        query = self.query()
        moved = query.split(torch.from_numpy(estimate))
        shape = query.components.shape[:2]
        least = _SEEN * std * float(query.scale.head)
        count = (query.centre.head + moved.head * query.scale.head).reshape(shape)
        size = count.clamp(min=max(least, torch.finfo(torch.float64).tiny))
        w = query.whitening
        unit = float(query.scale.body[0] * w[0])  # the same for every coordinate
        move = moved.body.reshape(*shape, query.body) * unit / size[:, :, None]
        noise = (std * unit / size) ** 2  # of each half-whitened coordinate of the move
        offset = query.components + move
        seen = count > least
        values, vectors = torch.linalg.eigh(self._total * w * w[:, None])
        offset = offset @ vectors
        excess = torch.where(seen[:, :, None], offset**2 - noise[:, :, None], 0.0)
        signal = excess.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
        signal = signal.clamp(min=0).minimum(values.clamp(min=0))[:, None]
        gain = signal / (signal + noise[:, :, None]).clamp(min=torch.finfo(torch.float64).tiny)
        offset = (offset * gain) @ vectors.transpose(1, 2) / w
        self._rounds += 1
        offset = torch.where(seen[:, :, None], offset, self._draw(self._rounds))
        self._model = self._with(offset, torch.where(seen, count, 0.0))

    def _draw(self, round_: int) -> torch.Tensor:
        """Draw centres around the class means, (classes, J, r), from the class covariance."""
        shape = self._start.arrays["mixture.components"].shape
        noise = np.random.default_rng([self._seed, round_]).standard_normal(shape)
        values, vectors = torch.linalg.eigh(self._total)
        root = vectors * values.clamp(min=0).sqrt()[:, None]
        offset: torch.Tensor = torch.from_numpy(noise) @ root.transpose(1, 2)
        return _FIRST_SPREAD * offset

    def _with(self, components: torch.Tensor, count: torch.Tensor) -> ScoreModel:
        """Return the model with these centres, at the released class mean and covariance."""
        total = count.sum(1, keepdim=True)
        weights = torch.where(total > 0, count / total, 1 / count.shape[1])
        components = components - (weights[:, :, None] * components).sum(1, keepdim=True)
        between = _between(components, weights)
        within = torch.stack(
            [subtract_covariance(t, b) for t, b in zip(self._total, between, strict=True)]
        )
        return self._start.released(
            {
                "mixture.component_weights": weights,
                "mixture.components": components,
                "mixture.covariance": within,
            }
        )

    def result(self) -> ScoreModel:
        """Return the model with the components of the rounds so far."""
        return self._model

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return the centres, their weights and the covariance within."""
        names = ("component_weights", "components", "covariance")
        state = {name: self._model.arrays[f"mixture.{name}"] for name in names}
        return {"rounds": np.array(self._rounds), **state}

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict`` of a learner that began with the same model."""
        self._rounds = int(state["rounds"])
        arrays = {f"mixture.{name}": state[name] for name in state if name != "rounds"}
        self._model = self._start.replace(arrays)


def _between(offset: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the covariance (classes, r, r) of centres at ``offset`` from their mean."""
    return torch.einsum("kj,kja,kjb->kab", weights, offset, offset)


def _total_covariance(model: ScoreModel) -> torch.Tensor:
    """Return the class covariances (classes, r, r): within the components and between them."""
    components = torch.from_numpy(model.arrays["mixture.components"]).double()
    weights = torch.from_numpy(model.arrays["mixture.component_weights"]).double()
    mean = (weights[:, :, None] * components).sum(1, keepdim=True)
    own = covariances(model.arrays)
    shares = weights if own.shape[1] > 1 else weights.sum(1, keepdim=True)
    within = torch.einsum("kj,kjab->kab", shares, own)
    return within + _between(components - mean, weights)
