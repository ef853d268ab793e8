"""Sums per class: the common shape of all moment questions.

A record's vector is ``head ∥ onehot(slot) ⊗ body``: a few dense coordinates, and a block that goes
to the slot of the record's class (or component). Only head and block are ever formed.

Head and block are ``(statistic - centre) / scale``. The centre is the model's present value, so a
site's sum is small (cheap to encode) and clipped around the right place; the scale makes the clip
norm 1. From an estimate e of the mean vector, a learner computes ``scale * e``, the mean of the
statistic less the centre (`dppm_model.training.moments`).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.products import TILE
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.query import Query

_CHUNK_ELEMENTS = 1 << 22
_CACHED_ELEMENTS = 1 << 18  # of vectors that are formed together


class Answers(NamedTuple):
    """Vectors of n records before clipping: head (n, h), slot (n,) int64, body (n, b)."""

    head: torch.Tensor
    slot: torch.Tensor
    body: torch.Tensor


class Layout(NamedTuple):
    """The number of coordinates of the head, of slots, and of coordinates of a body."""

    head: int
    slots: int
    body: int


class Sums(NamedTuple):
    """A head (h,) and the blocks of all slots (slots, b), or tensors that broadcast; float64."""

    head: torch.Tensor
    body: torch.Tensor


class MomentQuery(Query):
    """A `Query` for sums of ``head ∥ onehot(slot) ⊗ body``, whose vectors are not formed here.

    Attributes
    ----------
    centre, scale
        See the module.
    """

    chunk = 256  # at most

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.scales = model.scales
        self.basis = copy.deepcopy(model.scales.basis)  # `to` would move the configuration's own
        self.head, self.slots, self.body = self.layout(model.config)

    @property
    def centre(self) -> Sums:
        """See the module."""
        return Sums(self._centre_head, self._centre_body)

    @property
    def scale(self) -> Sums:
        """See the module."""
        return Sums(self._scale_head, self._scale_body)

    def keep_sums(self, centre: Sums, scale: Sums) -> None:
        """Set `centre` and `scale`."""
        self._centre_head, self._centre_body = map(nn.Buffer, centre)
        self._scale_head, self._scale_body = map(nn.Buffer, scale)

    @classmethod
    @abstractmethod
    def layout(cls, config: ModelConfig) -> Layout:
        """Return the sizes, which the public configuration decides."""

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """Return d; see `Query`."""
        head, slots, body = cls.layout(config)
        return head + slots * body

    def split(self, values: torch.Tensor) -> Sums:
        """Return the parts of a vector (d,)."""
        return Sums(values[: self.head], values[self.head :].reshape(self.slots, self.body))

    def join(self, sums: Sums) -> torch.Tensor:
        """Undo `split`: (d,) float64."""
        head = sums.head.double().expand(self.head)
        return torch.cat([head, sums.body.double().expand(self.slots, self.body).flatten()])


class ClassSumQuery(MomentQuery):
    """A `Query` whose vectors are ``head ∥ onehot(slot) ⊗ body``."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        self.chunk = min(type(self).chunk, max(TILE, _CHUNK_ELEMENTS // (self.head + self.body)))

    @abstractmethod
    def answers(self, x: torch.Tensor, y: torch.Tensor) -> Answers:
        """Return the vectors of records x (n, C, H, W) with labels y (n,), n at least 1."""

    def clipped_sum(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        grid: Grid,
        seeds: torch.Tensor,
    ) -> NDArray[np.int64]:
        """Sum the clipped integer vectors; see `Query`. The empty slots add nothing to a norm."""
        del seeds  # moments draw nothing
        head = x.new_zeros(self.head, dtype=torch.float64)
        body = x.new_zeros((self.slots, self.body), dtype=torch.float64)
        for answers in self._chunks(x, y):
            vectors = grid.quantize(torch.cat([answers.head, answers.body], dim=1))
            head += vectors[:, : self.head].sum(0)
            body.index_add_(0, answers.slot, vectors[:, self.head :])
        return grid.whole(torch.cat([head, body.flatten()]), len(x))

    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the vectors with their empty slots; see `Query`."""
        del seeds
        left, step = len(x), max(1, _CACHED_ELEMENTS // self.dimension)
        for answers in self._chunks(x, y):
            n = min(left, len(answers.slot))
            left -= n
            for start in range(0, n, step):
                head, slot, body = (t[start : min(start + step, n)] for t in answers)
                whole = body.new_zeros((len(slot), self.dimension))
                whole[:, : self.head] = head
                blocks = whole[:, self.head :].view(-1, self.slots, self.body)
                blocks[torch.arange(len(slot), device=slot.device), slot] = body
                yield whole

    def _chunks(self, x: torch.Tensor, y: torch.Tensor) -> Iterator[Answers]:
        """Ask chunk by chunk; the padding of the last chunk is not finite."""
        for images, labels in fixed_batches((x, y), self.chunk):
            yield self.answers(images, labels)
