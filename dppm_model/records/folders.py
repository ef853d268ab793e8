"""A folder with a sub-folder per class, perhaps inside train/ and test/.

Whatever is passed over is named with its reason.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from dppm_model.errors import DataError
from dppm_model.records.listing import (
    Choices,
    Listing,
    check_spelling,
    file_identity,
    split_of,
    with_test,
)
from dppm_model.records.picture_files import is_picture, pictures_in
from dppm_model.records.pictures import Picture
from dppm_model.records.site_key import SiteKey

_OTHERS = {"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"}  # made by systems


@dataclass
class _Walk:
    """The files found so far, and what was passed over."""

    classes: dict[tuple[int, int], tuple[Path, str]] = field(default_factory=dict)
    passed: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def pass_over(self, why: str, path: Path | str) -> None:
        """Note a file or folder that is not taken."""
        self.passed[why].append(str(path))


def list_folder(folder: Path, choices: Choices, key: SiteKey) -> Listing:
    """List a folder of classes, or of splits that have a folder of classes each.

    Raises DataError if it has no images, a class has none, a folder cannot be read, or a file has
    two classes or is on both sides of the split.
    """
    walk = _Walk()
    inner = _folders(folder)
    _note_loose(folder, walk)
    splits = {name: split_of(name) for name in inner}
    kinds = {split for split in splits.values() if split}
    # A folder called train alone may be a class, of railways.
    if "train" not in kinds or not (
        len(kinds) > 1 or (len(inner) == 1 and _folders(folder / inner[0]))
    ):
        return _with_passed(_classes(folder, inner, "", choices, key, walk), walk)
    if others := [name for name, split in splits.items() if split is None]:
        raise DataError(
            f"{folder} has splits ({', '.join(n for n in inner if splits[n])}) and other folders "
            f"({', '.join(others)}).",
            "Keep the splits in a folder of their own, or pass one as --test.",
        )
    for name in inner:
        _note_loose(folder / name, walk)
    parts = {
        side: [
            _classes(folder / name, _folders(folder / name), side, choices, key, walk)
            for name, split in splits.items()
            if split in members
        ]
        for side, members in (("train", {"train", "val"}), ("test", {"test"}))
    }
    found = parts["train"][0]
    for more in parts["train"][1:]:
        found = replace(with_test(found, more), held_out=None)
    for more in parts["test"]:
        found = with_test(found, more)
    listed = ", ".join(inner)
    note = f"The folders {listed} are taken as splits, not as classes" + (
        "; val joins train." if "val" in kinds else "."
    )
    check_spelling(f"classes in {folder}", found.classes, as_written=choices.as_written)
    return _with_passed(replace(found, notes=(note,)), walk)


def _with_passed(listing: Listing, walk: _Walk) -> Listing:
    return replace(listing, skipped=dict(walk.passed))


def _classes(
    folder: Path, names: list[str], side: str, choices: Choices, key: SiteKey, walk: _Walk
) -> Listing:
    """List one sub-folder per class; ``side`` is the split's, if there are splits."""
    check_spelling(f"classes in {folder}", names, as_written=choices.as_written)
    pictures: list[Picture] = []
    labels: list[str] = []
    for name in names:
        if {"train", "test"} <= {split_of(inner) for inner in _folders(folder / name)}:
            raise DataError(
                f"{folder / name} holds splits: it is no class.",
                f"Import {folder / name}, or bring each class into one folder.",
            )
        files = [
            file for file in sorted(_images(folder / name, walk)) if _new(file, side, name, walk)
        ]
        own = [picture for file in files for picture in _pictures(file, choices, key, walk)]
        if not own:
            raise DataError(f"{folder / name} has no images.", "Fill or remove that folder.")
        pictures += own
        labels += [name] * len(own)
    if not pictures:
        raise DataError(
            f"{folder} has no images in sub-folders.",
            "Make one sub-folder per class, or name the labels in a CSV (--labels).",
        )
    return Listing(pictures, np.array(labels), tuple(names))


def _pictures(file: Path, choices: Choices, key: SiteKey, walk: _Walk) -> list[Picture]:
    found = pictures_in(file, choices, key)
    if not found:
        walk.pass_over("DICOM files without an image", file)
    return found


def image_files(folder: Path) -> list[Path]:
    """Return the files in a folder and below that are meant as pictures, each once, sorted.

    Raises DataError if one cannot be reached.
    """
    first: dict[tuple[int, int], Path] = {}
    for path in sorted(_images(folder, _Walk())):
        first.setdefault(file_identity(path), path)
    return [*first.values()]


def _new(file: Path, side: str, name: str, walk: _Walk) -> bool:
    """Say whether a file was not found before under another name; refuse one with two meanings."""
    here = f"{side} {name}".strip()
    first, there = walk.classes.setdefault(file_identity(file), (file, here))
    if there != here:
        raise DataError(
            f"{file} is the same file as {first}: it would be both {there} and {here}.",
            "Remove one of these links.",
        )
    if first != file:
        walk.pass_over("further names of the same file", file)
    return first == file


def _images(folder: Path, walk: _Walk) -> Iterator[Path]:
    """Yield the images in a folder and below; links are followed, each folder once."""
    seen = {file_identity(folder)}
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        for name in [*folders]:
            identity = file_identity(Path(place, name))
            if _hidden(name):
                walk.pass_over("hidden folders", Path(place, name))
                folders.remove(name)
            elif identity in seen:
                walk.pass_over("further names of the same folder", Path(place, name))
                folders.remove(name)
            seen.add(identity)
        for name in files:
            path = Path(place, name)
            if _hidden(name):
                walk.pass_over("hidden files", path)
            elif file_identity(path) and is_picture(path):  # refuses a broken link, or a device
                yield path
            else:
                walk.pass_over(f"files {path.suffix.lower() or 'without a suffix'}", path)


def _folders(folder: Path) -> list[str]:
    """Return the names of the sub-folders that count, sorted."""
    return sorted(e.name for e in _entries(folder) if e.is_dir() and not _hidden(e.name))


def _note_loose(folder: Path, walk: _Walk) -> None:
    """Count what lies beside the folders that count."""
    for entry in _entries(folder):
        if _hidden(entry.name):
            what = "hidden folders" if entry.is_dir() else "hidden files"
            walk.pass_over(what, entry.path)
        elif not entry.is_dir():
            file_identity(Path(entry.path))  # a broken link is refused
            walk.pass_over("files beside the class folders", entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [*entries]
    except OSError as error:
        refuse(error)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _OTHERS


def refuse(error: OSError) -> NoReturn:
    """Refuse a file or folder that cannot be read."""
    raise DataError(
        f"{error.filename} cannot be read ({error.strerror}).",
        "Let this user read it, or take it out of the folder.",
    ) from None
