"""Reading safetensors of somebody else's making: arrays and metadata, or a refusal."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from dppm_model.errors import ModelError
from dppm_model.reading import parse_json

# What may be raised on the way: not this format, not these fields, too deep, too large.
DAMAGED = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def read_tensors(content: bytes) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Read metadata and arrays.

    Raises
    ------
    ModelError
        If it is something else.
    """
    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        return parse_json(content[8 : 8 + size]).get("__metadata__", {}), arrays
    except DAMAGED as error:
        raise damaged(error) from None


def damaged(error: Exception) -> ModelError:
    """Say that a model's file is none."""
    return ModelError(
        f"The model file is damaged or not a dppm model ({error!r:.200}).",
        "Copy it again from the run folder.",
    )
