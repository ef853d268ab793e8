"""What the learners of sums have in common: totals over the rounds, and a model fitted to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.model import ScoreModel


class AveragingLearner(ABC):
    """Averages the rounds of a phase; the rest of a `dppm_model.score.query.Learner`.

    Attributes
    ----------
    totals
        Names of the float64 tensors, ``_NAME`` each, that add up over the rounds.
    """

    totals: ClassVar[tuple[str, ...]]

    def __init__(self, model: ScoreModel) -> None:
        self._start = self._model = model
        self._rounds = 0
        self._variance = 0.0  # sum over the rounds of the noise variance of an estimate

    @abstractmethod
    def _fit(self) -> ScoreModel:
        """Return the start with what the totals say; called when there has been a round."""

    def result(self) -> ScoreModel:
        """Return the model of the rounds so far."""
        return self._model

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return the totals."""
        own = {name: getattr(self, f"_{name}").numpy().copy() for name in self.totals}
        return {"rounds": np.array(self._rounds), "variance": np.array(self._variance), **own}

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on from ``state_dict`` of a learner that began with the same model."""
        self._rounds = int(state["rounds"])
        self._variance = float(state["variance"])
        for name in self.totals:
            setattr(self, f"_{name}", torch.tensor(state[name], dtype=torch.float64))
        self._model = self._fit() if self._rounds else self._start
