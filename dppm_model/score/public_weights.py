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
from dppm_model.reading import reading

SHIPPED = Path(__file__).parent


def own_folder() -> Path:
    """Return the folder of weights that this machine's user has made: $DPPM_WEIGHTS."""
    return Path(os.environ.get("DPPM_WEIGHTS", "~/.cache/dppm/weights")).expanduser()


@lru_cache
def public_weights(name: str, array: str) -> NDArray[np.float32]:
    """Return an array (d,) of a file ``NAME.safetensors``: of the package, or of the user's own.

    A bundle of Flower's has code alone: there they are those of the site's own installation.

    Raises
    ------
    ModelError
        If there is no such file, or it holds something else.
    """
    file = f"{name}.safetensors"
    package = __name__.split(".")[:-1]
    installed = (Path(entry, *package, file) for entry in sys.path)
    path = next((p for p in (SHIPPED / file, *installed, own_folder() / file) if p.is_file()), None)
    if path is None:
        raise ModelError(
            f"The public weights {name!r:.80} are not on this machine.",
            f"Install dppm with pip, or put the file {file} into {own_folder()}.",
        )
    with reading(path, ModelError, "Copy the file again, or make it with `dppm pretrain`."):
        weights: NDArray[np.float32] = load_file(path)[array].astype(np.float32)
    return weights
