"""Bounds of every field of every request: what is checked before anything is built from one.

Rules that tie fields to each other, or to a server's limits, come after it (`orders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dppm_model.bounds import Choice, Row, Text, Whole
from dppm_model.errors import ConfigError
from sampler import settings
from sampler.service import sampling_pb2 as pb
from sampler.service.orders import MAX_INDEX


@dataclass(frozen=True)
class Several:
    """A repeated field: how many entries it has. Their bounds are ``each``, or its message's."""

    least: int
    most: int
    each: Row | None = None


Fields = Mapping[str, Row | Several | None]  # None: a message, which has rows of its own


def request_bounds(classes: int) -> Mapping[str, Fields]:
    """Return the table, by message and field, of a model with so many classes."""
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
        "Sampler": _sampler_bounds(),
        "StatusRequest": {"job": Text(64)},
        "CancelRequest": {"job": Text(64)},
    }


def _sampler_bounds() -> Fields:
    """Return the rows of `sampler.settings`; a step size is a list: none, one, or one a level."""
    rows = settings.BOUNDS
    return {**rows, "step_size": Several(0, settings.MOST_LEVELS, rows["step_size"])}


# Bytes of a request: what is larger is not even read. A test holds the largest good one below it.
MOST_BYTES = 128 * 1024


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
