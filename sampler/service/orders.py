"""What may be asked for: a request becomes an order, or is refused with the field and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dppm_model.bounds import Whole
from dppm_model.errors import ConfigError
from sampler.images import Shard
from sampler.service import sampling_pb2 as pb
from sampler.service.messages import settings_of
from sampler.settings import SamplerSettings
from sampler.stages import stage_settings

MAX_INDEX = 10**9  # one past the last index of a class


@dataclass(frozen=True)
class Served:
    """What a server offers.

    Attributes
    ----------
    model
        SHA-256 of the model file, hexadecimal.
    classes, shape
        Of the model: number of classes, (C, H, W).
    privacy
        ``epsilon_secure_sum``, ``epsilon_site``, ``delta``, ``unit``.
    settings
        What holds where a request says nothing else.
    shard_size
        Images of a shard. With that of `sampler.generate` the bits agree with its images.
    switch_levels
        Of a pyramid, the noise levels at which its stages take over.
    """

    model: str
    classes: int
    shape: tuple[int, int, int]
    privacy: Mapping[str, Any]
    settings: SamplerSettings
    shard_size: int
    switch_levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Limits:
    """How much may be asked for.

    Attributes
    ----------
    images_per_request
        Images of one request.
    images_per_hour
        Images that a client may have drawn in an hour, counted in whole shards.
    jobs_per_client, jobs
        Jobs at a time, of one client and of all.
    evaluations
        Evaluations of the model for one image.
    stall_seconds
        A job of whose images none was read for so long is ended.

    Raises
    ------
    ConfigError
        If one is not a whole number above zero and below 2^31.
    """

    images_per_request: int = 100_000
    images_per_hour: int = 100_000
    jobs_per_client: int = 8
    jobs: int = 32
    evaluations: int = 1000
    stall_seconds: int = 120

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            Whole(1, 2**31 - 1).check(name, value)


@dataclass(frozen=True)
class Piece:
    """The images of a shard that were asked for: its rows ``start`` to ``stop - 1``."""

    shard: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """A request that was found good.

    Attributes
    ----------
    batches
        Images asked for.
    shard_size
        See `Served`.
    """

    batches: tuple[pb.Batch, ...]
    shard_size: int
    seed: int
    settings: SamplerSettings
    format: pb.Format

    @property
    def images(self) -> int:
        """Images asked for."""
        return sum(b.count for b in self.batches)

    @property
    def shards(self) -> int:
        """Shards to be drawn."""
        size = self.shard_size
        return sum((b.first + b.count - 1) // size - b.first // size + 1 for b in self.batches)

    @property
    def cost(self) -> int:
        """Images to be drawn: those of whole shards."""
        return self.shards * self.shard_size

    def pieces(self) -> Iterator[Piece]:
        """Yield the shards one by one: a list of them all may be long."""
        return chain.from_iterable(_pieces(batch, self.shard_size) for batch in self.batches)


def read_order(request: pb.SampleRequest, served: Served, limits: Limits) -> Order:
    """Turn a request that is within `sampler.service.bounds` into an order; nothing is built yet.

    Raises
    ------
    ConfigError
        Naming the field, what is wrong with it, and the fix.
    """
    for i, batch in enumerate(request.batches):
        Whole(1, MAX_INDEX - batch.first).check(f"batches[{i}].count", batch.count)
    if (images := sum(b.count for b in request.batches)) > limits.images_per_request:
        raise ConfigError(
            f"The batches' counts add up to {images}.",
            f"Ask for at most {limits.images_per_request} images in one request.",
        )
    settings = settings_of(request.sampler, served.settings)
    if served.switch_levels:
        stage_settings(
            served.switch_levels, settings
        )  # refuses now what would fail at the last stage
    each = 1 + settings.transitions_per_level * settings.num_integration_steps
    evaluations = settings.num_levels * each * (1 if settings.guidance == 1 else 1 + served.classes)
    evaluations += len(served.switch_levels) * settings.octave_num_levels * each
    if evaluations > limits.evaluations:
        raise ConfigError(
            f"sampler: num_levels * (1 + transitions_per_level * num_integration_steps), guided "
            f"times 1 + classes, and the same of each octave, is {evaluations}.",
            f"Choose them so that it is at most {limits.evaluations}.",
        )
    batches = tuple(request.batches)
    return Order(batches, served.shard_size, request.seed, settings, request.format)


def _pieces(batch: pb.Batch, size: int) -> Iterator[Piece]:
    """Cover a batch by whole shards that begin where `sampler.images.shards_of` lets them begin."""
    end = batch.first + batch.count
    for at in range(batch.first - batch.first % size, end, size):
        yield Piece(Shard(batch.label, at, size), max(batch.first - at, 0), min(end - at, size))
