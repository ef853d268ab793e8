"""From our values to the messages of `sampling.proto` and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.images import to_image
from sampler.service import sampling_pb2 as pb
from sampler.settings import SamplerSettings

FIX = " Fix: "  # between message and hint, in the text of a status


def settings_of(message: pb.Sampler, otherwise: SamplerSettings) -> SamplerSettings:
    """Return ``otherwise`` with the fields that the message sets.

    Raises
    ------
    ConfigError
        If they do not make good settings.
    """
    given = {field.name: value for field, value in message.ListFields()}
    if "step_size" in given:
        step = tuple(given["step_size"])
        given["step_size"] = step[0] if len(step) == 1 else step
    return SamplerSettings.from_dict(otherwise.to_dict() | given)


def sampler_message(settings: SamplerSettings) -> pb.Sampler:
    """Return a message with every field set."""
    values = settings.to_dict()
    step = values.pop("step_size")
    return pb.Sampler(**values, step_size=step if isinstance(step, tuple) else [step])


def privacy_message(privacy: Mapping[str, Any]) -> pb.Privacy:
    """Return what the run promises."""
    return pb.Privacy(**{f.name: privacy[f.name] for f in pb.Privacy.DESCRIPTOR.fields})


def image_message(
    label: int,
    index: int,
    pixels: NDArray[np.uint8],
    form: pb.Format,
) -> pb.Image:
    """Return one image; ``pixels`` is (C, H, W)."""
    channels, height, width = pixels.shape
    if form == pb.RAW:
        data = pixels.tobytes()
    else:
        buffer = io.BytesIO()
        to_image(pixels).save(buffer, "PNG")
        data = buffer.getvalue()
    return pb.Image(
        label=label,
        index=index,
        format=form,
        data=data,
        channels=channels,
        height=height,
        width=width,
    )
