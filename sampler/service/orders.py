"""What may be asked for: a request becomes an order, or is refused with the field and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dppm_model.errors import ConfigError
from sampler.images import Shard
from sampler.service import sampling_pb2 as pb
from sampler.service.messages import settings_of
from sampler.settings import SamplerSettings

_MAX_BATCHES = 1000
_MAX_INDEX = 10**9  # one past the last index of a class


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
    octaves
        Of the model's pyramid.
    """

    model: str
    classes: int
    shape: tuple[int, int, int]
    privacy: Mapping[str, Any]
    settings: SamplerSettings
    shard_size: int
    octaves: int = 0


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
        If one is not a whole number above zero.
    """

    images_per_request: int = 100_000
    images_per_hour: int = 100_000
    jobs_per_client: int = 8
    jobs: int = 32
    evaluations: int = 1000
    stall_seconds: int = 120

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or not 1 <= value < 2**31:
                raise ConfigError(f"{name} is {value!r}.", "Give a whole number above zero.")


@dataclass(frozen=True)
class Piece:
    """The images of a shard that were asked for: its rows ``start`` to ``stop - 1``."""

    shard: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """A request that was found good."""

    pieces: tuple[Piece, ...]
    seed: int
    settings: SamplerSettings
    format: pb.Format

    @property
    def images(self) -> int:
        """Images asked for."""
        return sum(p.stop - p.start for p in self.pieces)

    @property
    def cost(self) -> int:
        """Images to be drawn: those of whole shards."""
        return sum(p.shard.count for p in self.pieces)


def read_order(request: pb.SampleRequest, served: Served, limits: Limits) -> Order:
    """Check a request and split it into shards.

    Raises
    ------
    ConfigError
        Naming the field, what is wrong with it, and the fix.
    """
    if not 1 <= len(request.batches) <= _MAX_BATCHES:
        raise ConfigError(
            f"batches has {len(request.batches)} entries.", f"Give 1 to {_MAX_BATCHES}."
        )
    for i, batch in enumerate(request.batches):
        name = f"batches[{i}]"
        _in_range(f"{name}.label", batch.label, 0, served.classes - 1)
        _in_range(f"{name}.first", batch.first, 0, _MAX_INDEX - 1)
        _in_range(f"{name}.count", batch.count, 1, _MAX_INDEX - batch.first)
    if (images := sum(b.count for b in request.batches)) > limits.images_per_request:
        raise ConfigError(
            f"The batches' counts add up to {images}.",
            f"Ask for at most {limits.images_per_request} images in one request.",
        )
    _in_range("seed", request.seed, 0, 2**63 - 1)
    if request.format not in pb.Format.values():
        raise ConfigError(f"format is {request.format}.", "Use PNG (0) or RAW (1).")
    settings = settings_of(request.sampler, served.settings)
    each = 1 + settings.iterations * settings.steps
    evaluations = settings.levels * each * (1 if settings.guidance == 1 else 1 + served.classes)
    evaluations += served.octaves * settings.octave_levels * each
    if evaluations > limits.evaluations:
        raise ConfigError(
            f"sampler: levels * (1 + iterations * steps), guided times 1 + classes, and the same "
            f"of each octave, is {evaluations}.",
            f"Choose them so that it is at most {limits.evaluations}.",
        )
    pieces = tuple(piece for batch in request.batches for piece in _pieces(batch, served))
    return Order(pieces, request.seed, settings, request.format)


def _in_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} is {value}.", f"Give a whole number from {least} to {most}.")


def _pieces(batch: pb.Batch, served: Served) -> list[Piece]:
    """Cover a batch by whole shards that begin where `sampler.images.shards_of` lets them begin."""
    size, end = served.shard_size, batch.first + batch.count
    return [
        Piece(Shard(batch.label, at, size), max(batch.first - at, 0), min(end - at, size))
        for at in range(batch.first - batch.first % size, end, size)
    ]
