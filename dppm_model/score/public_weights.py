"""Public weights of networks: files beside the code, and files that `dppm pretrain` has written."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dppm_model.errors import ModelError
from dppm_model.reading import read_json, reading

SHIPPED = Path(__file__).parent
_HINT = "Copy the file again, or make it with `dppm pretrain`."


def own_folder() -> Path:
    """Return the folder of weights that this machine's user has made: $DPPM_WEIGHTS."""
    return Path(os.environ.get("DPPM_WEIGHTS", "~/.cache/dppm/weights")).expanduser()


@lru_cache
def public_weights(name: str, array: str) -> NDArray[np.float32]:
    """Return an array (d,) of a file ``NAME.safetensors``: of the package, or of the user's own.

    Raises
    ------
    ModelError
        If there is no such file, or it holds something else.
    """
    with reading(path := _path(f"{name}.safetensors"), ModelError, _HINT):
        weights: NDArray[np.float32] = load_file(path)[array].astype(np.float32)
    return weights


@lru_cache
def public_data(name: str) -> tuple[str, ...]:
    """Return the names of the data that taught the weights NAME, from ``NAME.json``.

    Raises
    ------
    ModelError
        If there is no such file, or it holds something else.
    """
    with reading(path := _path(f"{name}.json"), ModelError, _HINT):
        return tuple(sorted(map(str, read_json(path)["data"])))


def _path(file: str) -> Path:
    """Find a file; a bundle of Flower's has code alone, but the site has an installation."""
    package = __name__.split(".")[:-1]
    installed = (Path(entry, *package, file) for entry in sys.path)
    places = (SHIPPED / file, *installed, own_folder() / file)
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise ModelError(
            f"The public weights {file!r:.80} are not on this machine.",
            f"Install dppm with pip, or put the file into {own_folder()}.",
        )
    return path
