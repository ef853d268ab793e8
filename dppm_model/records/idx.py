"""The file format of the MNIST family: idx, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_idx(content: bytes, name: str, rank: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: magic 00 00 08 rank, big-endian sizes, data.

    Raises
    ------
    DataError
        If it is not such a file of that rank, or is cut short.
    """
    start = 4 + 4 * rank
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        shape = np.frombuffer(content[4:start], ">u4").tolist()
    except (OSError, EOFError, zlib.error, ValueError):
        shape = []
    whole = content[:4] == bytes([0, 0, 8, rank]) and len(content) == start + math.prod(shape)
    if len(shape) != rank or not whole:
        raise DataError(f"{name} is no complete idx file of bytes.", "Get the file again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_folder(folder: Path) -> dict[str, Split]:
    """Read the four files of the MNIST family, each plain or with ``.gz``, from a folder.

    Returns
    -------
    For ``train`` and ``test`` the images, uint8 (n, 1, H, W), and the labels, int64 (n,).

    Raises
    ------
    DataError
        If one is missing or damaged.
    """
    return {
        split: (
            _read_file(folder, images, 3)[:, None],
            _read_file(folder, labels, 1).astype(np.int64),
        )
        for split, (images, labels) in FILES.items()
    }


def _read_file(folder: Path, name: str, rank: int) -> NDArray[np.uint8]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return read_idx(path.read_bytes(), str(path), rank)
    raise DataError(f"{folder / name}(.gz) is missing.", "Put the four idx files there.")
