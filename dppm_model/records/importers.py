"""People's own images: a folder per class, a CSV, or a MedMNIST file, into the local store."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dppm_model.errors import ConfigError, DataError
from dppm_model.progress import Progress, silent
from dppm_model.records.sources import DATASETS, data_root
from dppm_model.records.writing import replacing, write_records

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_GREY = {"1", "L", "LA"}
_HINT = "Remove or mend it."
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
    path: Path,
    name: str,
    *,
    root: Path | None = None,
    size: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Import images as data set ``name``, in one of three formats.

    Returns the folder that holds the splits. Raises ConfigError or DataError naming the argument or
    the file, and the fix. The data set is then not there at all. One that exists is never replaced:
    runs and sites rely on its records.

    Parameters
    ----------
    path
        A folder with one sub-folder per class; a CSV with columns ``file``, ``label`` and perhaps
        ``person`` (files relative to the CSV); or a MedMNIST npz.
    root
        The local store; by default `data_root()`.
    size
        Pixels a side to resize to; needed where the images differ in size. Not for npz.
    test_fraction
        Share held out for `dppm evaluate`, by whole persons if the data name them. An npz brings
        its own test split.
    seed
        Of the choice of the test split.
    """
    if size is not None and size < 1:
        raise ConfigError(f"--size is {size}.", "Give a number of pixels above zero.")
    if path.is_dir():
        listing = _list_folder(path)
    elif path.suffix.lower() == ".csv" and path.is_file():
        listing = _list_csv(path)
    elif path.suffix.lower() == ".npz" and path.is_file():
        if size is not None:
            raise ConfigError(
                f"--size is {size}, but {path} is not resized.", "Leave --size out for npz files."
            )
        return _import_medmnist(path, name, root=root)
    else:
        raise DataError(
            f"{path} is not a folder, .csv or .npz file.", "See `dppm data --help` for the formats."
        )
    return _import_files(listing, name, root, size, test_fraction, seed, progress)


def _list_folder(folder: Path) -> _Listing:
    """List a folder with one sub-folder per class; names with a leading dot are passed over."""
    classes = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise DataError(f"{folder} has no images.", "Put images into one sub-folder per class.")
    labels = np.array([label for _, label in files], dtype=np.int64)
    if missing := sorted(set(range(len(classes))) - set(labels.tolist())):
        raise DataError(
            f"{folder / classes[missing[0]]} has no images.", "Fill or remove that folder."
        )
    return _Listing([path for path, _ in files], labels, classes, None)


def _list_csv(path: Path) -> _Listing:
    """List the rows of a CSV with columns ``file``, ``label`` and perhaps ``person``."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({error}).", "Save it as UTF-8.") from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise DataError(
            f"{path} has no rows, or no columns file,label.",
            "Start the file with: file,label[,person]",
        )
    columns = [column for column in ("file", "label", "person") if column in rows[0]]
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if empty := [column for column in columns if not row[column]]:
            raise DataError(f"{path}, row {line}: {empty[0]} is empty.", "Fill it in.")
        # A file listed twice would be twice in the sum, and perhaps on both sides of the split.
        if row["file"] in seen:
            raise DataError(
                f"{path}, row {line} names {row['file']} again.", "Name each file once."
            )
        seen.add(row["file"])
    classes, labels = np.unique([row["label"] for row in rows], return_inverse=True)
    persons = None
    if "person" in columns:
        persons = np.unique([row["person"] for row in rows], return_inverse=True)[1]
    files = [path.parent / row["file"] for row in rows]
    return _Listing(files, labels, tuple(map(str, classes)), persons)


def _import_files(
    listing: _Listing,
    name: str,
    root: Path | None,
    size: int | None,
    test_fraction: float,
    seed: int,
    progress: Progress,
) -> Path:
    held_out = _hold_out(listing, test_fraction, np.random.default_rng(seed))
    grey = all_grey(listing.files)
    shape = read_picture(listing.files[0], grey=grey, size=size).shape
    read = 0

    def images(index: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for start in range(0, len(index), _CHUNK):
            chosen = [listing.files[i] for i in index[start : start + _CHUNK]]
            yield np.stack([_same(shape, path, grey, size) for path in chosen])
            read += len(chosen)
            progress(f"{name}: {read} images", read / len(listing.files))

    with _new_dataset(name, root) as (folder, target):
        for split, chosen in (("train", ~held_out), ("test", held_out)):
            index = np.flatnonzero(chosen)
            if index.size:
                write_records(
                    folder / split,
                    images(index),
                    listing.labels[index],
                    name=name,
                    split=split,
                    classes=listing.classes,
                    persons=None if listing.persons is None else listing.persons[index],
                )
    return target


def _same(shape: tuple[int, ...], path: Path, grey: bool, size: int | None) -> NDArray[np.uint8]:
    array = read_picture(path, grey=grey, size=size)
    if array.shape != shape:
        raise DataError(
            f"{path} has shape {array.shape}, the first image {shape}.",
            "Pass --size to resize all.",
        )
    return array


def _hold_out(listing: _Listing, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the test records, whole persons at a time; at least one if any are asked for."""
    if not 0 <= fraction < 1:
        raise ConfigError(f"--test-fraction is {fraction}.", "Give a number in [0, 1).")
    owners = np.arange(len(listing.labels)) if listing.persons is None else listing.persons
    units = np.unique(owners)
    number = max(round(fraction * len(units)), int(fraction > 0))
    held_out = np.isin(owners, rng.permutation(units)[:number])
    if held_out.all():
        raise DataError("The test split would take every record.", "Lower --test-fraction.")
    return held_out


@contextlib.contextmanager
def _new_dataset(name: str, root: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield a hidden folder for the splits, which gets its name when all of them are whole."""
    if not _NAME.fullmatch(name) or name in DATASETS:
        raise ConfigError(
            f"--name is {name!r}.",
            "Use lower-case letters, digits, '-', '_'; not a public data set's name.",
        )
    target = (data_root() if root is None else root) / name
    if target.exists():
        raise ConfigError(
            f"--name is {name!r}, and {target} exists.", "Take another name or remove that folder."
        )
    with replacing(target) as made:
        yield made, target
        if target.exists():
            raise ConfigError(
                f"--name is {name!r}, and {target} was created meanwhile.", "Take another."
            )


def _import_medmnist(path: Path, name: str, *, root: Path | None = None) -> Path:
    """Import a file in MedMNIST's format: ``train_images``, ``train_labels``, ``test_images``, ...

    The validation split joins the training split: nothing here is tuned on it.
    """
    with _open_npz(path) as file, _new_dataset(name, root) as (folder, target):
        parts = [p for p in ("train", "val", "test") if f"{p}_images" in file.files]
        needed = {"train_images", *(f"{part}_labels" for part in ("train", *parts))}
        if missing := sorted(needed - {*file.files}):
            raise DataError(f"{path} lacks {', '.join(missing)}.", "Use MedMNIST's format.")
        labels = {part: _labels(_member(file, f"{part}_labels", path), path) for part in parts}
        classes = 1 + max(int(own.max(initial=0)) for own in labels.values())
        for split, members in (("train", {"train", "val"}), ("test", {"test"})):
            own = [part for part in parts if part in members]
            if own:
                write_records(
                    folder / split,
                    (_images(_member(file, f"{part}_images", path), path) for part in own),
                    np.concatenate([labels[part] for part in own]),
                    name=name,
                    split=split,
                    classes=[str(i) for i in range(classes)],
                )
    return target


def _open_npz(path: Path) -> np.lib.npyio.NpzFile:
    try:
        file = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged archive raises OSError, zlib.error, BadZipFile, ...
        raise DataError(f"{path} is not a readable npz file ({error}).", "Get it again.") from None
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is not an npz file.", "Save it with numpy.savez.")
    return file


def _member(file: np.lib.npyio.NpzFile, key: str, path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = file[key]
    except Exception as error:
        raise DataError(f"{path}: {key} is not readable ({error}).", "Get it again.") from None
    return array


def _labels(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring (n,) or (n, 1) to (n,)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path}: labels have shape {labels.shape}.", "One label per image; choose one column."
        )
    return labels


def _images(images: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring (n, H, W) or (n, H, W, 3) to (n, C, H, W)."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] == 3:
        return np.moveaxis(images, -1, 1)
    raise DataError(
        f"{path}: images have shape {images.shape}.",
        "Give (n, H, W) or (n, H, W, 3); volumes are not supported.",
    )


def all_grey(files: Iterable[Path]) -> bool:
    """Say whether no file has colour, from the headers alone."""
    return all(_mode(path) in _GREY for path in files)


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return image.mode
    except Exception as error:  # damaged files make decoders raise anything, even SyntaxError
        raise DataError(f"{path} is no readable image ({error}).", _HINT) from None


def read_picture(path: Path, *, grey: bool, size: int | None) -> NDArray[np.uint8]:
    """Read one image, turned upright as its EXIF says and laid on white where transparent.

    With ``size``, the largest centred square is cut out and resized to ``size`` pixels a side.
    Raises DataError if it is damaged, or has more than 8 bits a pixel: only the owner of the images
    knows which bits matter (a window for scans), and cutting some off would spoil them silently.

    Returns
    -------
    uint8 (C, H, W), C = 1 or 3.
    """
    mode = _mode(path)
    if mode.startswith(("I", "F")):
        raise DataError(
            f"{path} has more than 8 bits a pixel (mode {mode}).",
            "Convert the images to 8-bit grey or RGB.",
        )
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            image = image.convert("L" if grey else "RGB")
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            array = np.asarray(image, dtype=np.uint8)
    except Exception as error:
        raise DataError(f"{path} is no readable image ({error}).", _HINT) from None
    return array[None] if grey else np.moveaxis(array, -1, 0)
