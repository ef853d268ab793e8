"""Where images go: idempotent shards named by class and first index, a manifest, PNG on request.

    OUT/manifest.json  OUT/shards/class-003-000128.npz  OUT/png/3/000128.png

A shard is a fixed set of images (class, first, count) and is always computed as one batch: the last
bits of a matrix product can depend on the batch it is in, so the batch is part of the shard's name.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dppm_model.errors import RunFolderError, SamplerError
from dppm_model.files import write_bytes, write_json


@dataclass(frozen=True)
class Shard:
    """``count`` images of one class, from index ``first`` on."""

    label: int
    first: int
    count: int

    @property
    def name(self) -> str:
        """File name, unique within a run."""
        return f"class-{self.label:03d}-{self.first:06d}.npz"


def shards_of(classes: int, per_class: int, size: int) -> list[Shard]:
    """Split ``per_class`` images of every class into shards of at most ``size``."""
    return [
        Shard(label, first, min(size, per_class - first))
        for first in range(0, per_class, size)
        for label in range(classes)
    ]


def write_shard(
    folder: Path, shard: Shard, images: NDArray[np.uint8], info: Mapping[str, Any]
) -> None:
    """Write a shard atomically, with a digest of its own."""
    buffer = io.BytesIO()
    meta = {"info": dict(info), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
    np.savez_compressed(buffer, images=images, meta=np.array(json.dumps(meta)))
    write_bytes(folder / "shards" / shard.name, buffer.getvalue())


def read_shard(folder: Path, shard: Shard) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Return a shard's images and info, or None if it is missing or damaged."""
    try:
        with np.load(folder / "shards" / shard.name) as file:
            images = file["images"]
            meta = json.loads(str(file["meta"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None
    if len(images) != shard.count or hashlib.sha256(images.tobytes()).hexdigest() != meta["sha256"]:
        return None
    return images, meta["info"]


def open_output(folder: Path, manifest: dict[str, Any]) -> None:
    """Begin, or continue, an output folder.

    Raises
    ------
    RunFolderError
        If the folder holds images of another model or other settings.
    """
    path = folder / "manifest.json"
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k in manifest if k != "per_class" and old.get(k) != manifest[k]]
        if changed:
            raise RunFolderError(
                f"{folder} holds images made with another {', '.join(changed)}.",
                "Remove that folder, or sample into another one.",
            )
    write_json(path, manifest)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output folder.

    Raises
    ------
    SamplerError
        If there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        raise SamplerError(f"{folder} holds no images.", "Draw some with `dppm sample`.") from None
    return manifest


def load_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read all images (n, C, H, W) uint8 and labels (n,) of a finished output folder.

    Raises
    ------
    SamplerError
        If a shard is missing or damaged.
    """
    manifest = manifest_of(folder)
    images, labels = [], []
    for shard in shards_of(manifest["classes"], manifest["per_class"], manifest["shard_size"]):
        found = read_shard(folder, shard)
        if found is None:
            raise SamplerError(
                f"{folder / 'shards' / shard.name} is missing or damaged.",
                "Run `dppm sample` again; it makes only what is missing.",
            )
        images.append(found[0])
        labels.append(np.full(shard.count, shard.label, dtype=np.int64))
    return np.concatenate(images), np.concatenate(labels)


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Turn (C, H, W) into a Pillow image, grey or RGB."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def write_png(folder: Path, shard: Shard, images: NDArray[np.uint8]) -> None:
    """Write a shard's images as PNG files into a folder per class."""
    for number, pixels in enumerate(images, shard.first):
        buffer = io.BytesIO()
        to_image(pixels).save(buffer, "PNG")
        target = folder / "png" / str(shard.label)
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{number:06d}.png").write_bytes(buffer.getvalue())
