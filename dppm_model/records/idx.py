"""The file formats of the MNIST family: idx, plain or gzipped, and one restricted old pickle."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: magic 00 00 08 rank, big-endian sizes, data.

    Raises
    ------
    DataError
        If it is not such a file, or is cut short.
    """
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    rank = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = tuple(int(n) for n in np.frombuffer(content[4 : 4 + 4 * rank], ">u4"))
    if not rank or len(content) != 4 + 4 * rank + int(np.prod(shape)):
        raise DataError(f"{name} is no complete idx file of bytes.", "Get the file again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_folder(folder: Path) -> dict[str, Split]:
    """Read the four files of the MNIST family, each plain or with ``.gz``, from a folder.

    Raises
    ------
    DataError
        If one is missing or damaged.
    """
    splits = {}
    for split, names in FILES.items():
        arrays = []
        for name in names:
            found = [p for p in (folder / name, folder / f"{name}.gz") if p.is_file()]
            if not found:
                raise DataError(
                    f"{folder / name}(.gz) is missing.", "Put the four idx files there."
                )
            arrays.append(read_idx(found[0].read_bytes(), str(found[0])))
        splits[split] = (arrays[0][:, None], arrays[1].astype(np.int64))
    return splits


class _ArraysOnly(pickle.Unpickler):
    """Admits NumPy's array constructors and nothing else: a pickle can run any code."""

    ADMITTED = frozenset(
        [
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise DataError(f"The pickle asks for {module}.{name}.", "Use another source.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(content: bytes) -> dict[str, Split]:
    """Read the (50k, 10k, 10k) pickle of float32 = pixel/256 that Python 2 wrote."""
    a, b, c = _ArraysOnly(io.BytesIO(gzip.decompress(content)), encoding="latin1").load()

    def pixels(x: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.rint(x * 256).astype(np.uint8).reshape(-1, 1, 28, 28)

    return {
        "train": (
            np.concatenate([pixels(a[0]), pixels(b[0])]),
            np.concatenate([a[1], b[1]]).astype(np.int64),
        ),
        "test": (pixels(c[0]), c[1].astype(np.int64)),
    }
