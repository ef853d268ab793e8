"""What every peer is given, and what it must hand back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dppm_model.records.pixels import to_tensor
from dppm_model.records.shards import Records

ADJACENCY = "add or remove one record"


@dataclass(frozen=True)
class Task:
    """The private records and the promise to be kept about them.

    Attributes
    ----------
    x, y
        (n, C, H, W) images in [-1, 1] and their (n,) labels: private.
    classes, epsilon, delta
        Public.
    seed
        Of first weights and of what is drawn; the noise that protects is never seeded.
    rounds
        Rounds of training instead of the recipe's own, for peers that have rounds.
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: int
    epsilon: float
    delta: float
    seed: int = 0
    rounds: int | None = None

    @classmethod
    def of(cls, records: Records, epsilon: float, delta: float, **options: Any) -> Task:
        """Read all records of a split into memory."""
        x, y = to_tensor(records.images), torch.tensor(records.labels)
        return cls(x, y, len(records.manifest.classes), epsilon, delta, **options)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        c, h, w = self.x.shape[1:]
        return c, h, w


@dataclass(frozen=True)
class Trained:
    """A generator, with what was promised about it.

    Attributes
    ----------
    draw
        (labels (n,), seed) -> images (n, C, H, W), near [-1, 1].
    trust
        Who sees records, or sums of them without noise.
    guarantee
        What ``epsilon`` protects, in words.
    epsilon
        Found for what was done, not what was asked for; None without a promise.
    recipe
        All constants, JSON-able.
    """

    draw: Callable[[torch.Tensor, int], torch.Tensor]
    trust: str
    guarantee: str
    epsilon: float | None
    recipe: dict[str, Any]


Train = Callable[[Task], Trained]
