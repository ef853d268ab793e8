"""Requests: every request is checked, or refused with the field and the fix.

Each field is checked against the table of bounds before anything is built from it; then come the
rules between fields, and the server's limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dppm_model.bounds import Choice, Row, Text, Whole
from dppm_model.errors import ConfigError
from sampler.images import Shard
from sampler.service import sampling_pb2 as pb
from sampler.settings import BOUNDS, MOST_LEVELS, SamplerSettings
from sampler.stages import stage_settings

MAX_INDEX = 10**9  # one past the last index of a class
# Bytes of a request: larger ones are not even read. A test holds the largest good one below it.
MOST_BYTES = 128 * 1024
_GUIDED = 4  # evaluations without guidance that one with it costs, about


@dataclass(frozen=True)
class Several:
    """A repeated field: how many entries it has. Their bounds are ``each``, or its message's."""

    least: int
    most: int
    each: Row | None = None


Fields = Mapping[str, Row | Several | None]  # None: a message, with its own rows


def request_bounds(classes: int) -> Mapping[str, Fields]:
    """Return the table, by message and field, of a model with this number of classes."""
    return {
        "DescribeRequest": {},
        "SampleRequest": {
            "batches": Several(1, 1000),
            "seed": Whole(0),
            "sampler": None,
            "format": Choice((pb.PNG, pb.RAW), "PNG (0) or RAW (1)"),
        },
        "Batch": {
            "label": Whole(0, classes - 1),
            "first": Whole(0, MAX_INDEX - 1),
            "count": Whole(1, MAX_INDEX),
        },
        # A step size is a list here: none, one, or one a level.
        "Sampler": {**BOUNDS, "step_size": Several(0, MOST_LEVELS, BOUNDS["step_size"])},
        "StatusRequest": {"job": Text(64)},
        "CancelRequest": {"job": Text(64)},
    }


def check_request(message: Any, bounds: Mapping[str, Fields], path: str = "") -> None:
    """Refuse a message with a field out of its bounds.

    Raises
    ------
    ConfigError
        By the field's name.
    """
    for field in message.DESCRIPTOR.fields:
        row, name = bounds[message.DESCRIPTOR.name][field.name], path + field.name
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if row is None:
            check_request(value, bounds, f"{name}.")
        elif not isinstance(row, Several):
            row.check(name, value)
        elif not row.least <= len(value) <= row.most:
            raise ConfigError(
                f"{name} has {len(value)} entries.", f"Give {row.least} to {row.most}."
            )
        else:
            for i, one in enumerate(value):
                if row.each is None:
                    check_request(one, bounds, f"{name}[{i}].")
                else:
                    row.each.check(name, one)


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server offers."""

    model: str  # SHA-256 of the model file, hexadecimal
    # of the model: number of classes, (C, H, W)
    classes: int
    shape: tuple[int, int, int]
    # ``epsilon_release``, ``epsilon_secure_sum``, ``epsilon_site`` (None: infinite), ``delta``,
    # ``unit``
    privacy: Mapping[str, Any]
    settings: SamplerSettings  # settings of a request that sets none
    # Images of a shard. With that of `sampler.generate` the bits agree with its images.
    shard_size: int
    # of a pyramid, the noise levels at which its stages take over
    switch_levels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Limits:
    """How much may be asked for.

    Raises ConfigError if one is not a whole number above zero and below 2^31.
    """

    images_per_request: int = 100_000  # images of one request
    # images that a client may have drawn in an hour, counted in whole shards
    images_per_hour: int = 100_000
    # jobs at a time, of one client and of all
    jobs_per_client: int = 8
    jobs: int = 32
    evaluations: int = 1000  # evaluations of the model for one image
    stall_seconds: int = 120  # a job whose images are not read for this long is ended

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            Whole(1, 2**31 - 1).check(name, value)


@dataclass(frozen=True)
class ShardSlice:
    """The images of a shard that were asked for: its rows ``start`` to ``stop - 1``."""

    shard: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class SampleRequest:
    """A valid request for images."""

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

    def pieces(self) -> Iterator[ShardSlice]:
        """Yield the shards one by one: a list of them all may be long."""
        return chain.from_iterable(_pieces(batch, self.shard_size) for batch in self.batches)


def read_request(request: pb.SampleRequest, model: ModelInfo, limits: Limits) -> SampleRequest:
    """Convert a request that passed `check_request`; nothing is built yet.

    Raises ConfigError naming the field, what is wrong with it, and the fix.
    """
    for i, batch in enumerate(request.batches):
        Whole(1, MAX_INDEX - batch.first).check(f"batches[{i}].count", batch.count)
    if (images := sum(b.count for b in request.batches)) > limits.images_per_request:
        raise ConfigError(
            f"The batches' counts add up to {images}.",
            f"Ask for at most {limits.images_per_request} images in one request.",
        )
    settings = settings_of(request.sampler, model.settings)
    if model.switch_levels:
        stage_settings(model.switch_levels, settings)  # or it would fail at the last stage
    each = 1 + settings.transitions_per_level * settings.num_integration_steps
    evaluations = settings.num_levels * each * (1 if settings.guidance == 1 else _GUIDED)
    evaluations += len(model.switch_levels) * settings.stage_num_levels * each
    if evaluations > limits.evaluations:
        raise ConfigError(
            f"sampler: num_levels * (1 + transitions_per_level * num_integration_steps), guided "
            f"times {_GUIDED}, and the same of each stage, is {evaluations}.",
            f"Choose them so that it is at most {limits.evaluations}.",
        )
    batches = tuple(request.batches)
    return SampleRequest(batches, model.shard_size, request.seed, settings, request.format)


def settings_of(message: pb.Sampler, otherwise: SamplerSettings) -> SamplerSettings:
    """Return ``otherwise`` with the fields that the message sets.

    Raises ConfigError if the settings are invalid together.
    """
    given = {field.name: value for field, value in message.ListFields()}
    if "step_size" in given:
        step = tuple(given["step_size"])
        given["step_size"] = step[0] if len(step) == 1 else step
    return SamplerSettings.from_dict(otherwise.to_dict() | given)


def _pieces(batch: pb.Batch, size: int) -> Iterator[ShardSlice]:
    """Cover a batch by whole shards that begin where `sampler.images.shards_of` lets them begin."""
    end = batch.first + batch.count
    for at in range(batch.first - batch.first % size, end, size):
        yield ShardSlice(
            Shard(batch.label, at, size), max(batch.first - at, 0), min(end - at, size)
        )
