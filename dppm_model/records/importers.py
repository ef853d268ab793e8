"""People's own images: a folder per class, a CSV, or a MedMNIST file, into the local store."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.shards import write_records
from dppm_model.records.sources import DATASETS, Progress, data_root

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_CHUNK = 256
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


@dataclass(frozen=True)
class _Listing:
    """Files with labels and, if the CSV names them, persons."""

    files: list[Path]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    persons: NDArray[np.int64] | None


def import_dataset(
    source: Path,
    name: str,
    *,
    size: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress = lambda _message, _fraction: None,
) -> Path:
    """Import images as data set ``name``; what ``source`` is decides how it is read.

    Parameters
    ----------
    source
        A folder with one sub-folder per class; a CSV with columns ``file``, ``label`` and perhaps
        ``person`` (files relative to the CSV); or an npz with ``train_images``, ``train_labels``,
        ``test_images``, ``test_labels`` (MedMNIST; its validation split joins the training split).
    size
        Pixels a side to resize to; needed where the images differ in size.
    test_fraction
        Share held out for `dppm evaluate` (folder and CSV); by persons where there are persons.

    Raises
    ------
    ConfigError, DataError
        Naming the argument or the file, and the fix. Nothing is half-written.
    """
    if not _NAME.fullmatch(name) or name in DATASETS:
        raise ConfigError(
            f"--name is {name!r}.", "Use small letters, digits, '-', '_'; not a public set's name."
        )
    if not 0 <= test_fraction < 1:
        raise ConfigError(f"--test-fraction is {test_fraction}.", "Give a number in [0, 1).")
    if size is not None and size < 1:
        raise ConfigError(f"--size is {size}.", "Give a number of pixels above zero.")
    target = data_root() / name
    if source.is_dir():
        _import_files(_list_folder(source), target, size, test_fraction, seed, progress)
    elif source.suffix == ".csv" and source.is_file():
        _import_files(_list_csv(source), target, size, test_fraction, seed, progress)
    elif source.suffix == ".npz" and source.is_file():
        _import_medmnist(source, target)
    else:
        raise DataError(
            f"{source} is no folder, .csv or .npz file.", "See `dppm data --help` for the formats."
        )
    return target


def _list_folder(folder: Path) -> _Listing:
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise DataError(f"{folder} has no images.", "Put images into one sub-folder per class.")
    labels = np.array([label for _, label in files], dtype=np.int64)
    if missing := [name for i, name in enumerate(classes) if i not in set(labels.tolist())]:
        raise DataError(f"{folder / missing[0]} has no images.", "Fill or remove that folder.")
    return _Listing([path for path, _ in files], labels, classes, None)


def _list_csv(path: Path) -> _Listing:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise DataError(f"{path} has no columns file,label.", "Begin with: file,label[,person]")
    classes = tuple(sorted({row["label"] for row in rows}))
    labels = np.array([classes.index(row["label"]) for row in rows], dtype=np.int64)
    persons = None
    if "person" in rows[0]:
        persons = np.unique([row["person"] for row in rows], return_inverse=True)[1]
    return _Listing([path.parent / row["file"] for row in rows], labels, classes, persons)


def _import_files(
    listing: _Listing,
    target: Path,
    size: int | None,
    test_fraction: float,
    seed: int,
    progress: Progress,
) -> None:
    first = _read(listing.files[0], size, None)
    held_out = _hold_out(listing, test_fraction, np.random.default_rng(seed))
    read = 0

    def images(index: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for start in range(0, len(index), _CHUNK):
            chosen = index[start : start + _CHUNK]
            yield np.stack([_read(listing.files[i], size, first.shape) for i in chosen])
            read += len(chosen)
            progress(f"{target.name}: {read} images", read / len(listing.files))

    for split, index in (("train", np.flatnonzero(~held_out)), ("test", np.flatnonzero(held_out))):
        if index.size:
            write_records(
                target / split,
                images(index),
                listing.labels[index],
                name=target.name,
                split=split,
                classes=listing.classes,
                persons=None if listing.persons is None else listing.persons[index],
            )


def _hold_out(listing: _Listing, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the test records, whole persons at a time: nobody is on both sides."""
    owners = np.arange(len(listing.labels)) if listing.persons is None else listing.persons
    units = np.unique(owners)
    chosen = rng.permutation(units)[: round(fraction * len(units))]
    held_out = np.isin(owners, chosen)
    if held_out.all():
        raise DataError("The test split would take every record.", "Lower --test-fraction.")
    return held_out


def _read(path: Path, size: int | None, shape: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """Read one image as uint8 (C, H, W), grey or RGB as the first one was."""
    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "I", "I;16", "F") if shape is None else shape[0] == 1
            pixels = image.convert("L" if grey else "RGB")
            if size is not None:
                pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
            array = np.asarray(pixels, dtype=np.uint8)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f"{path} is no readable image ({error}).", "Remove or mend it.") from None
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if shape is not None and array.shape != shape:
        raise DataError(
            f"{path} has shape {array.shape}, the first image {shape}.",
            "Pass --size to resize all.",
        )
    return array


def _import_medmnist(path: Path, target: Path) -> None:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable npz file ({error}).", "Get it again.") from None
    if missing := {"train_images", "train_labels"} - arrays.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}.", "Use MedMNIST's format.")

    def stack(keys: Sequence[str], suffix: str) -> NDArray[np.generic]:
        found = [arrays[f"{key}_{suffix}"] for key in keys if f"{key}_{suffix}" in arrays]
        return np.concatenate(found)

    classes = 1 + int(max(arrays[k].max() for k in arrays if k.endswith("_labels")))
    for split, keys in (("train", ("train", "val")), ("test", ("test",))):
        if f"{keys[0]}_images" in arrays:
            write_records(
                target / split,
                _medmnist(stack(keys, "images"), path),
                stack(keys, "labels").reshape(-1),
                name=target.name,
                split=split,
                classes=[str(i) for i in range(classes)],
            )


def _medmnist(images: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Bring (n, H, W) or (n, H, W, 3) to uint8 (n, C, H, W)."""
    if not np.isfinite(images).all():
        raise DataError(f"{path} holds pixels that are not finite.", "Repair them first.")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: images are {images.dtype} with {images.ndim} axes.",
            "MedMNIST's are uint8, (n, H, W) or (n, H, W, 3).",
        )
    pixels = images.astype(np.uint8, copy=False)
    return pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
