"""WebDataset: tar files of ``KEY.png`` with ``KEY.cls`` or ``KEY.json`` beside it."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from dppm_model.errors import DataError
from dppm_model.reading import parse_json
from dppm_model.records.archives import with_splits
from dppm_model.records.listing import Choices, Listing
from dppm_model.records.pictures import SUFFIXES, EncodedPicture, Picture
from dppm_model.records.tables import Table, list_table, role_of, trimmed


def list_webdataset(path: Path, files: list[Path], choices: Choices) -> Listing:
    """List the samples of tar files; no image is read yet.

    A sample is what shares a name up to its first dot. ``cls`` is its label, as a number or a name;
    without it the values of ``json`` are the columns of a table, as in a CSV. The files' names tell
    the splits (``train-000000.tar``, ``test/000000.tar``), if they name both sides. Raises
    DataError if a file is damaged, or a sample lacks image or label, or has two.
    """
    pictures: list[Picture] = []
    samples: list[dict[str, str]] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    counts: list[int] = []
    for file in files:
        for picture, values in _samples(file, skipped, choices):
            pictures.append(picture)
            samples.append({"file": picture.name, **values})
        counts.append(len(samples) - sum(counts))
    if not samples:
        raise DataError(f"{path} has no images.", "Bring KEY.png with KEY.cls or KEY.json.")
    head = [*dict.fromkeys(name for sample in samples for name in sample)]
    rows = [
        (number, [sample.get(name, "") for name in head])
        for number, sample in enumerate(samples, start=1)
    ]
    table = Table(path, head, rows)
    listing = list_table(table, choices, lambda _: (pictures, [1] * len(pictures)))
    return replace(with_splits(listing, path, files, counts), skipped=dict(skipped))


def _samples(
    path: Path, skipped: dict[str, list[str]], choices: Choices
) -> Iterator[tuple[Picture, dict[str, str]]]:
    """Yield the samples of a file: the picture, and its values by column."""
    for key, parts in _members(path, skipped).items():
        name = f"{path}, {key}"
        images = [part for suffix, part in parts.items() if f".{suffix}" in SUFFIXES]
        if len(images) != 1:
            raise DataError(
                f"{name} has {len(images)} images beside {', '.join(parts)}.",
                "Give each sample one image.",
            )
        values = _facts(name, _read(path, parts["json"])) if "json" in parts else {}
        if "cls" in parts and choices.label is None:
            others = [column for column in values if role_of(column) == "label"]
            for column in others:  # the label has a file of its own
                del values[column]
        if "cls" in parts:
            values["label" if choices.label is None else "cls"] = _label(
                name, _read(path, parts["cls"])
            )
        if not values:
            raise DataError(f"{name} has neither cls nor json.", "Give each sample a label.")
        yield EncodedPicture(name, partial(_read, path, images[0])), values


def _members(path: Path, skipped: dict[str, list[str]]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return (start, size) of what counts, by sample and suffix, in the order of the file."""
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                stem, _, suffix = place.name.partition(".")
                suffix = suffix.lower()
                full = f"{path}, {member.name}"
                if member.isdir():
                    continue
                if any(part.startswith(".") or part == "__MACOSX" for part in place.parts):
                    skipped["hidden members"].append(full)
                elif f".{suffix}" not in SUFFIXES and suffix not in ("cls", "json"):
                    skipped[f"members .{suffix}"].append(full)
                elif not member.isreg() or member.issparse():
                    raise DataError(f"{full} is no plain file.", "Write it with its content.")
                elif suffix in found[str(place.parent / stem)]:
                    raise DataError(f"{full} occurs twice.", "Name each sample once.")
                else:
                    own = member.offset_data, member.size
                    found[str(place.parent / stem)][suffix] = own
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(
            f"{path} is no readable tar file ({error}).",
            "Get it again; unpack it if it is compressed.",
        ) from None
    return {key: parts for key, parts in found.items() if parts}


def _read(path: Path, member: tuple[int, int]) -> bytes:
    start, size = member
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _label(name: str, content: bytes) -> str:
    try:
        return trimmed(content.decode())
    except UnicodeDecodeError:
        raise DataError(f"{name}: cls is not UTF-8 text.", "Write it again.") from None


def _facts(name: str, content: bytes) -> dict[str, str]:
    """Return the plain values of a JSON object as text."""
    try:
        raw = parse_json(content)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise DataError(f"{name}: json is no object.", "Write it again.")
    plain = {
        key: "" if value is None else trimmed(str(value))
        for key, value in raw.items()
        if not isinstance(value, list | dict) and role_of(key) != "file"
    }
    return {trimmed(key): value for key, value in plain.items()}
