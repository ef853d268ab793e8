"""A tiny data set of the MNIST family, in each of the forms in which such sets travel."""

import gzip
import struct
from pathlib import Path

import numpy as np

from dppm_model.records import routes
from dppm_model.records.shards import digest

RNG = np.random.default_rng(0)
SPLITS = {
    split: (RNG.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), RNG.integers(0, 10, n))
    for split, n in (("train", 12), ("test", 4))
}


def to_idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files() -> dict[str, bytes]:
    files = {}
    for split, (images, labels) in SPLITS.items():
        for name, array in zip(routes.FILES[split], (images[:, 0], labels), strict=True):
            files[name] = to_idx(array)
    return files


def idx_folder(folder: Path, *, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in idx_files().items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def same(splits: dict[str, routes.Split]) -> bool:
    return all(
        digest(i.shape[1:], [i], y, None) == digest((1, 28, 28), [SPLITS[s][0]], SPLITS[s][1], None)
        for s, (i, y) in splits.items()
    )
