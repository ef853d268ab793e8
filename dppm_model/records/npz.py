"""A file in MedMNIST's format: ``train_images``, ``train_labels``, ``test_images``, ..."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.records.listing import Listing
from dppm_model.records.pictures import ArrayPicture
from dppm_model.records.spool import unnamed_file

_CHUNK = 2**20


def list_npz(path: Path, work: Path) -> Listing:
    """List the images of an npz; its validation split joins training: nothing is tuned on it.

    Labels are whole numbers or text; a class is called like its label. The images are unpacked into
    files without names in the folder ``work``, which the system frees: they may exceed the memory.
    """
    with _open(path) as file:
        parts = [p for p in ("train", "val", "test") if f"{p}_images" in file.files]
        needed = {"train_images", *(f"{part}_labels" for part in ("train", *parts))}
        if missing := sorted(needed - {*file.files}):
            raise DataError(f"{path} lacks {', '.join(missing)}.", "Use MedMNIST's format.")
        labels = [_labels(_member(file, f"{part}_labels", path), path) for part in parts]
        pictures = [
            _pictures(_unpacked(f"{part}_images", path, work), path, part) for part in parts
        ]
    for part, own, images in zip(parts, labels, pictures, strict=True):
        if len(own) != len(images):
            raise DataError(
                f"{path}: {len(images)} images for {len(own)} labels in {part}.",
                "Give one label per image.",
            )
    joined = np.concatenate(labels)
    held_out = np.repeat([part == "test" for part in parts], [len(own) for own in labels])
    return Listing(
        [picture for own in pictures for picture in own],
        joined.astype(np.str_),
        tuple(map(str, np.unique(joined))),
        held_out=held_out if "test" in parts else None,
        notes=("The validation split joins training.",) if "val" in parts else (),
    )


def _open(path: Path) -> np.lib.npyio.NpzFile:
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
        raise _unreadable(path, key, error) from None
    return array


def _unpacked(key: str, path: Path, work: Path) -> NDArray[Any]:
    """Map a member from a file that has no name, and so outlives neither its map nor a kill."""
    with unnamed_file(work) as unpacked:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
                shutil.copyfileobj(member, unpacked, _CHUNK)
            unpacked.seek(0)
            version = np.lib.format.read_magic(unpacked)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
            shape, by_columns, dtype = (read or np.lib.format.read_array_header_2_0)(unpacked)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            if 0 in shape:  # nothing to map
                return np.empty(shape, dtype)
            start, order = unpacked.tell(), "F" if by_columns else "C"
            mapped: NDArray[Any] = np.memmap(unpacked, dtype, "r", start, shape, order)  # type: ignore[call-overload]
            return mapped
        except Exception as error:  # a damaged archive raises zlib.error, BadZipFile, ...
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            raise _unreadable(path, key, error) from None


def _unreadable(path: Path, key: str, error: Exception) -> DataError:
    return DataError(f"{path}: {key} is not readable ({error}).", "Get it again.")


def _labels(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Bring (n,) or (n, 1) to (n,)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{path}: labels have shape {labels.shape}.", "One label per image; choose one column."
        )
    if labels.dtype.kind not in "iuU" or (labels.dtype.kind == "i" and labels.min(initial=0) < 0):
        raise DataError(
            f"{path}: labels are {labels.dtype}, or below zero.",
            "Give whole numbers from 0, or text.",
        )
    return labels


def _pictures(images: NDArray[Any], path: Path, part: str) -> list[ArrayPicture]:
    """Take (n, H, W) or (n, H, W, 3) apart."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"{path}: images have shape {images.shape}.",
            "Give (n, H, W) or (n, H, W, 3); volumes are not supported.",
        )
    if images.dtype != np.uint8:
        raise DataError(
            f"{path}: images are {images.dtype}, not uint8.", "Convert them to 8-bit grey or RGB."
        )
    return [ArrayPicture(f"{path}, {part} {i}", image) for i, image in enumerate(images)]
