"""Reading safetensors of somebody else's making: arrays and metadata, or a refusal."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load

from dppm_model.errors import ModelError
from dppm_model.reading import parse_json, reading


def read_tensors(content: bytes) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Read metadata and arrays.

    Raises
    ------
    ModelError
        If it is something else.
    """
    with reading_model():
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        return parse_json(content[8 : 8 + size]).get("__metadata__", {}), arrays


def reading_model() -> AbstractContextManager[None]:
    """Turn whatever goes wrong in a block that reads a model into a `ModelError`."""
    return reading("The model", ModelError, "Copy it again from the run folder.")
