"""Where images go: shards named by class and first index, and a manifest that says what they are.

    OUT/manifest.json  OUT/shards/class-003-000100.npz  OUT/png/3/000100.png (on request)

A shard is a fixed set of images (class, first, count). It is the unit of work: always computed as
one batch, because the last bits of a matrix product can depend on the batch they are computed in.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dppm_model.errors import DataError, RunFolderError
from dppm_model.files import write_bytes, write_json
from dppm_model.folders import there
from dppm_model.reading import parse_json, read_bytes, read_json, reading

_MOST_IMAGES, _MOST_VALUES = 100, 1 << 20  # of a shard

_MOST = 10**9  # classes, and images of each, that a manifest may speak of

# What may differ when a folder is continued: more images, and what is filled in at the end.
_OPEN = ("per_class", "shards", "acceptance", "divergences")


@dataclass(frozen=True)
class Shard:
    """``count`` images of one class, from index ``first`` on."""

    label: int
    first: int
    count: int

    @property
    def name(self) -> str:
        """File name, unique within a folder."""
        return f"class-{self.label:03d}-{self.first:06d}.npz"


def shard_size(shape: tuple[int, int, int]) -> int:
    """How many images of a shape (C, H, W) are a shard: a batch must fit into a worker's memory."""
    return max(1, min(_MOST_IMAGES, _MOST_VALUES // math.prod(shape)))


def shards_of(classes: int, per_class: int, size: int) -> list[Shard]:
    """Split ``per_class`` images of every class into shards of at most ``size``."""
    return [
        Shard(label, first, min(size, per_class - first))
        for first in range(0, per_class, size)
        for label in range(classes)
    ]


def _shards(manifest: Mapping[str, Any]) -> list[Shard]:
    return shards_of(manifest["classes"], manifest["per_class"], manifest["shard_size"])


def to_pixels(x: torch.Tensor) -> NDArray[np.uint8]:
    """Map float (n, C, H, W) to uint8, clamped to [-1, 1] and rounded.

    Raises DataError if a value is not a number: clamping keeps NaN, and its byte would be
    arbitrary.
    """
    if torch.isnan(x).any():
        raise DataError("An image holds NaN.", "Sample again with a smaller step size.")
    scaled = ((x.detach().clamp(-1, 1) + 1) * 127.5).round()
    pixels: NDArray[np.uint8] = scaled.to(torch.uint8).cpu().numpy()
    return pixels


def encode_shard(shard: Shard, images: NDArray[np.uint8], info: Mapping[str, Any]) -> bytes:
    """Return the content of a shard's file; the same images and info give the same bytes."""
    buffer = io.BytesIO()
    labels = np.full(shard.count, shard.label, dtype=np.int64)
    np.savez_compressed(
        buffer, images=images, labels=labels, first=shard.first, info=json.dumps(dict(info))
    )
    return buffer.getvalue()


def decode_shard(
    content: bytes,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int, dict[str, Any]]:
    """Return images (n, C, H, W), labels (n,), first index and info from `encode_shard`'s bytes."""
    with np.load(io.BytesIO(content)) as file:
        info = parse_json(str(file["info"]))
        return file["images"], file["labels"], int(file["first"]), info


def shard_path(folder: Path, shard: Shard) -> Path:
    """Return where a shard of an output folder lies."""
    return folder / "shards" / shard.name


def read_shard(
    folder: Path, shard: Shard, digest: str | None = None
) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
    """Return a shard's images and info; None if it is missing, damaged or another shard.

    Parameters
    ----------
    digest
        SHA-256 of the file, where it is known; the file's own checksums are tested in any case.
    """
    try:
        content = read_bytes(shard_path(folder, shard))
        images, labels, first, info = decode_shard(content)
    except Exception:  # a damaged archive raises whatever its first bad byte leads to
        return None
    whole = len(images) == len(labels) == shard.count and images.dtype == np.uint8
    if not whole or first != shard.first or (labels != shard.label).any():
        return None
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        return None
    return images, info


def open_output(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Begin an output folder, or continue one; return its manifest.

    Raises RunFolderError if the folder holds images of another model, other settings, or more
    images than asked for.

    Parameters
    ----------
    manifest
        Model digest, settings, seed, ``classes``, ``shape``, ``shard_size``, ``per_class``,
        privacy.
    """
    path = folder / "manifest.json"
    if not there(path):
        if any((folder / "shards").glob("*.npz")):
            raise RunFolderError(
                f"{folder} holds shards but no manifest.json, so their settings are unknown.",
                "Remove that folder, or sample into another one.",
            )
        write_json(path, manifest | {"shards": {}})
    old = manifest_of(folder)
    new = json.loads(json.dumps(manifest))  # as it would be read back: lists for tuples
    changed = [key for key in new if key not in _OPEN and old.get(key) != new[key]]
    if changed:
        raise RunFolderError(
            f"{folder} holds images made with different {', '.join(changed)}.",
            "Remove that folder, or sample into another one.",
        )
    if new["per_class"] < old["per_class"]:
        raise RunFolderError(
            f"{folder} has {old['per_class']} images of each class, not {new['per_class']}.",
            "Ask for at least as many, or sample into another folder.",
        )
    if new["per_class"] > old["per_class"]:
        # A shard that was the short last one of its class will be made again, longer.
        kept = {s.name for s in set(_shards(old)) & set(_shards(new))}
        digests = {name: digest for name, digest in old["shards"].items() if name in kept}
        old |= {"per_class": new["per_class"], "shards": digests}
        write_json(path, old)
    return old


def figures_of(folder: Path, shards: Sequence[Shard]) -> dict[str, Any]:
    """Gather what the sampler said of each shard, whoever drew it and when.

    Raises RunFolderError if a shard is missing or damaged.
    """
    weighted, weight, divergences = 0.0, 0, 0
    for shard in shards:
        found = read_shard(folder, shard)
        if found is None:
            raise RunFolderError(
                f"{shard_path(folder, shard)} was changed while sampling.", "Sample again."
            )
        levels = found[1]["acceptance"]
        weighted += sum(levels) * shard.count
        weight += len(levels) * shard.count
        divergences += found[1]["divergences"]
    return {"acceptance": weighted / weight if weight else None, "divergences": divergences}


def close_output(folder: Path, manifest: dict[str, Any], figures: dict[str, Any]) -> None:
    """Add each shard's SHA-256 and the sampler's figures to the manifest; it is then complete."""
    digests = {
        shard.name: hashlib.sha256(shard_path(folder, shard).read_bytes()).hexdigest()
        for shard in _shards(manifest)
    }
    complete = manifest | figures | {"shards": digests}
    if complete != manifest:
        write_json(folder / "manifest.json", complete)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output folder.

    Raises RunFolderError if there is none, or it is damaged.
    """
    path = folder / "manifest.json"
    if not there(path):
        raise RunFolderError(f"{folder} holds no images.", "Run `dppm sample` first.")
    with reading(path, RunFolderError, "Remove that folder and run `dppm sample` again."):
        manifest: dict[str, Any] = {**read_json(path)}
        for key in ("classes", "per_class", "shard_size"):
            if type(manifest[key]) is not int or not 0 < manifest[key] <= _MOST:
                raise ValueError(f"{key} is not a whole number from 1 to {_MOST}")
        manifest["shards"] = {**manifest["shards"]}
    return manifest


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the images of a finished output folder, from those of its shards."""
    return hashlib.sha256(json.dumps(manifest["shards"], sort_keys=True).encode()).hexdigest()


def load_shards(folder: Path) -> Iterator[tuple[Shard, NDArray[np.uint8]]]:
    """Yield the shards of a finished output folder, each with its images (n, C, H, W) uint8.

    Raises RunFolderError if sampling has not finished, or a shard is missing or damaged.
    """
    manifest = manifest_of(folder)
    for shard in _shards(manifest):
        found = read_shard(folder, shard, manifest["shards"].get(shard.name, ""))
        if found is None:
            raise RunFolderError(
                f"{shard_path(folder, shard)} is missing, unfinished or damaged.",
                "Run `dppm sample` again; it draws only missing images.",
            )
        yield shard, found[0]


def load_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read all images (n, C, H, W) uint8 and labels (n,); raises as `load_shards` does."""
    shards, images = zip(*load_shards(folder), strict=True)
    labels = np.repeat([shard.label for shard in shards], [shard.count for shard in shards])
    return np.concatenate(images), labels.astype(np.int64)


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Turn (C, H, W) into a Pillow image, grey or RGB."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def export_png(folder: Path) -> None:
    """Write the images of a finished output folder as ``png/CLASS/INDEX.png``; keep what is there.

    Raises
    ------
    RunFolderError
        As `load_images`.
    """
    images, labels = load_images(folder)
    for label in np.unique(labels):
        target = folder / "png" / str(label)
        target.mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(images[labels == label]):
            path = target / f"{index:06d}.png"
            if not path.exists():
                buffer = io.BytesIO()
                to_image(pixels).save(buffer, "PNG")
                write_bytes(path, buffer.getvalue(), durable=False)
