"""Batch invariance, tested on this machine: a record's integers do not depend on its batch.

Lemma 15 (PRIVACY.md) needs more than correct rounding: a record's vector must not depend, to the
last bit, on the other sampled records, on its place among them, or on their number.
`dppm_model.mechanism.products` and `fixed_batches` ensure that by the sizes and alignment of
matrices. But a matrix library is free to choose its kernels for these sizes and this processor. So
a site tests them before it answers: it puts random public records to the very question, permuted,
in other company, at other places, and every sum must be the same. Sizes follow from the plan and
kernels from sizes, so one test for each kind of phase and configuration is enough.

Three things are tested. Every matrix product of a question must have the sizes that `products`
makes, or consist of whole numbers, whose sums are exact in any order. The integers must be equal,
and so must the vectors before clipping, to the last bit. A server may leave out a question's
optional arrays, so that is tested too. An accelerator is tested with the question as it runs there.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from dppm_model.errors import NotBatchInvariant
from dppm_model.mechanism.products import STEP, TILE
from dppm_model.mechanism.quantize import MOST_STEPS, Grid
from dppm_model.score.arrays import draw_arrays
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import build_query, kind_of
from dppm_model.score.query import Query

_MORE = 9  # records more than a chunk, so that the last chunk is padded
# Arrays hold numbers of six orders of magnitude, up to these fractions of their ranges. Larger ones
# would drown a record's last bits in what all records add.
_REACHES = (1e-4, 1e-2)
# This clip norm shortens every vector to the whole grid, where the last bits show.
_GRID = Grid(1e-30, MOST_STEPS)
_SEED = 0


def check_batch_invariance(
    phase: str, config: ModelConfig, device: torch.device | str = "cpu"
) -> None:
    """Refuse a machine on which a record's integers depend on its batch (Lemma 15).

    ``phase`` and the plan's ``config`` say what is asked; ``device`` is where the site answers.
    Raises NotBatchInvariant naming the phase, and what was seen.
    """
    # Besides the sizes, these decide the kernels.
    machine = (torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    if wrong := _problem(kind_of(phase).name, config, torch.device(device), machine):
        raise NotBatchInvariant(
            f"Phase {phase}: on this machine a record's integers depend on its company ({wrong}).",
            "If the question or its network is new, multiply matrices only through "
            "dppm_model/mechanism/products.py. Otherwise do not answer from this machine; report "
            "its processor and the versions installed.",
        )


@lru_cache(maxsize=64)
def _problem(kind: str, config: ModelConfig, device: torch.device, machine: object) -> str | None:
    """Say what is wrong, or None; once in a process for all its virtual sites and rounds."""
    del machine
    asked, rng = kind_of(kind).question, np.random.default_rng(_SEED)
    names = asked.needed | asked.optional
    # The closed form below a network is slow to build: one is enough. So is one public array.
    asked_of = [names & part.specs(config).keys() for part in config.parts]
    highest = next(own for own in reversed(asked_of) if own)
    arrays: dict[str, NDArray[Any]] = {**config.public_arrays}
    for reach in _REACHES:
        fresh = names if reach == _REACHES[0] else highest
        arrays |= draw_arrays(config, fresh, rng, reach)
        if wrong := _seen_in(build_query(kind, ScoreModel(config, arrays)).to(device), config, rng):
            return wrong
    if names != asked.needed:  # a server may leave out the others, which changes the products
        needed = {
            n: a for n, a in arrays.items() if n in asked.needed | config.public_arrays.keys()
        }
        return _seen_in(build_query(kind, ScoreModel(config, needed)).to(device), config, rng)
    return None


def _seen_in(query: Query, config: ModelConfig, rng: np.random.Generator) -> str | None:
    """Say what is wrong with one question, or None."""
    records = _Records(query, config, query.chunk + _MORE, rng)
    everyone = np.arange(records.count)
    whole = records.total(everyone)
    if not whole.any():
        return "all vectors are zero"
    for first in (0, 1, 2, 7, query.chunk // 2 + 1, query.chunk + 1):
        order = rng.permutation(everyone)
        parts = records.total(order[:first]) + records.total(order[first:])
        if not np.array_equal(parts, whole):
            return f"{records.count} records in another order, {first} of them by themselves"
    if records.rows(everyone) != records.rows(rng.permutation(everyone)):
        return f"vectors of {records.count} records in another order"
    try:
        with _Products():  # type: ignore[no-untyped-call]
            records.total(everyone)  # anything computed once for all records is done by now
            records.rows(everyone[:TILE])
    except _UnevenProduct as error:
        return str(error)
    return None


class _Records:
    """Random public records, and what a question computes from some of them."""

    def __init__(
        self, query: Query, config: ModelConfig, count: int, rng: np.random.Generator
    ) -> None:
        self.query, self.count = query, count
        self._pixels = rng.integers(0, 256, (count, *config.shape), dtype=np.uint8)
        labels = torch.from_numpy(rng.integers(0, config.classes, count))
        self._labels = labels.to(query.device)
        self._seeds = torch.from_numpy(rng.integers(0, 2**63 - 1, count))

    def _seen(self, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seeds = self._seeds[chosen]
        return self.query.view(self._pixels[chosen], seeds), self._labels[chosen], seeds

    def total(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the clipped sum of some records, (d,)."""
        x, y, seeds = self._seen(chosen)
        return self.query.clipped_sum(x, y, _GRID, seeds)

    def rows(self, chosen: NDArray[np.int64]) -> dict[int, int]:
        """Return a checksum of each record's vector before clipping.

        A CRC is enough for long vectors: it shows every change within one number, and misses one in
        2^32 of the others; kernels are not adversaries.
        """
        pieces = (piece.cpu().numpy() for piece in self.query.rows(*self._seen(chosen)))
        rows = (row for piece in pieces for row in piece)
        return {int(i): zlib.crc32(row.tobytes()) for i, row in zip(chosen, rows, strict=True)}


class _UnevenProduct(Exception):
    """A matrix product whose sizes let kernels treat rows differently."""


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Observes all matrix products of a block."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _STEPS:
            factors = [t for t in args if isinstance(t, torch.Tensor)][-2:]
            sizes = [n for t in factors for n in t.shape[-2:]]
            if any(n % _STEPS[name] for n in sizes) and not all(map(_is_whole, factors)):
                raise _UnevenProduct(f"a product {name} of {[tuple(t.shape) for t in factors]}")
        return func(*args, **(kwargs or {}))


# The sizes of each kind of product are multiples of these; no size of the last two is right.
_STEPS = {"mm": TILE, "addmm": TILE, "bmm": STEP, "baddbmm": STEP, "mv": 2**62, "dot": 2**62}


def _is_whole(x: torch.Tensor) -> bool:
    return x.dtype == torch.float64 and bool((x == x.round()).all())
