"""What a stored data set holds, for the people at its site: not differentially private.

`describe` reads labels and persons only; `examine` reads every image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dppm_model.progress import Progress, silent
from dppm_model.records.copies import WORDS, exact_copies, fingerprint, near_copies
from dppm_model.records.intake import Intake
from dppm_model.records.shards import Records
from dppm_model.records.sources import SPLITS, data_root, load
from dppm_model.records.writing import in_chunks

BINS = 32  # of an intensity histogram
_FEW = 50  # training records of a class
_UNEVEN = 20  # times as many records as another class has
_SHOWN_EVERY = 64  # images
_LARGE_SHARE = 0.1  # of the training records, by one person


@dataclass(frozen=True)
class SplitCounts:
    """One split; ``records`` and ``persons`` are by class, ``persons`` None where none are named.

    ``records_per_person`` is least, median, most.
    """

    split: str
    total: int
    records: tuple[int, ...]
    total_persons: int | None
    persons: tuple[int, ...] | None
    records_per_person: tuple[int, float, int] | None

    @classmethod
    def of(cls, split: str, records: Records) -> SplitCounts:
        """Count the records of a split."""
        classes = range(len(records.manifest.classes))
        labels, owners = records.labels, records.persons
        counts = tuple(np.bincount(labels, minlength=len(classes)).tolist())
        if owners is None:
            return cls(split, len(records), counts, None, None, None)
        own = np.unique(owners, return_counts=True)[1]
        spread = int(own.min()), float(np.median(own)), int(own.max())
        persons = tuple(len(np.unique(owners[labels == label])) for label in classes)
        return cls(split, len(records), counts, len(own), persons, spread)


@dataclass(frozen=True)
class Description:
    """A data set by its labels, persons and the account of its import."""

    name: str
    shape: tuple[int, int, int]
    depth: int  # bits of a channel
    classes: tuple[str, ...]
    splits: tuple[SplitCounts, ...]
    intake: Intake | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """A data set by its pixels.

    ``copies`` and ``alike`` are (copy, original), each a place such as ``test 17``. ``across``
    counts exact copies with one side in training and one in test, ``contradicting`` those under two
    classes, ``constant`` the images of one value. ``histograms`` (classes, C, BINS) are shares of a
    channel's values in training images, from dark to bright.
    """

    copies: tuple[tuple[str, str], ...]
    alike: tuple[tuple[str, str], ...]
    across: int
    contradicting: int
    constant: int
    histograms: NDArray[np.float64]
    warnings: tuple[str, ...]


def opened(name: str, root: Path | None = None) -> dict[str, Records]:
    """Open the splits of a data set that are there; raises as `sources.load` does."""
    folder = (data_root() if root is None else root) / name
    splits = {s: load(name, s, root) for s in SPLITS if (folder / s).is_dir()}
    return splits or {"train": load(name, "train", root)}  # refuses


def describe(name: str, root: Path | None = None) -> Description:
    """Count a data set's records and persons.

    Raises ConfigError if there is no such data set, DataError if it is damaged.
    """
    splits = opened(name, root)
    first = next(iter(splits.values()))
    counts = tuple(SplitCounts.of(split, records) for split, records in splits.items())
    return Description(
        name,
        first.manifest.shape,
        8 * first.all_images.dtype.itemsize,
        first.manifest.classes,
        counts,
        Intake.read((data_root() if root is None else root) / name),
        tuple(_warnings(first.manifest.classes, counts, splits)),
    )


def _warnings(
    classes: tuple[str, ...], counts: tuple[SplitCounts, ...], splits: dict[str, Records]
) -> Iterator[str]:
    by_split = {one.split: one for one in counts}
    if (train := by_split.get("train")) is None:
        yield "There is no training split."
        return
    if train.total_persons is None:
        yield (
            "No persons are named: ε protects single records, and someone with several has "
            "several times that loss."
        )
    few = [f"{c} ({n})" for c, n in zip(classes, train.records, strict=True) if n < _FEW]
    if few:
        yield f"Fewer than {_FEW} training records: {_shortened(few)}."
    if max(train.records) > _UNEVEN * min(train.records):
        yield (
            f"The largest class has {max(train.records)} training records, the smallest "
            f"{min(train.records)}."
        )
    if train.records_per_person and train.records_per_person[2] > _LARGE_SHARE * train.total:
        yield f"One person has {train.records_per_person[2]} of {train.total} training records."
    test = by_split.get("test")
    if test is None:
        yield "There is no test split: `dppm evaluate` needs one."
    elif none := [c for c, n in zip(classes, test.records, strict=True) if not n]:
        yield f"Without test records: {_shortened(none)}."
    sides = [records.persons for records in splits.values()]
    if len(sides) == 2 and sides[0] is not None and sides[1] is not None:
        both = np.intersect1d(sides[0], sides[1])
        if both.size:
            yield f"{both.size} persons have training and test records."


def examine(name: str, root: Path | None = None, progress: Progress = silent) -> Contents:
    """Read every image of a data set: copies, constant images, intensities.

    Takes time of order n² for near-copies, a minute for 100,000 images. Raises as `describe` does.
    """
    splits = opened(name, root)
    count = sum(map(len, splits.values()))
    places = [f"{split} {i}" for split, records in splits.items() for i in range(len(records))]
    labels = np.concatenate([records.labels for records in splits.values()])
    manifest = next(iter(splits.values())).manifest
    histograms = np.zeros((len(manifest.classes), manifest.shape[0], BINS))
    digests: list[bytes] = []
    prints = np.zeros((count, WORDS), dtype=np.uint64)
    constant = 0
    for number, image in enumerate(_images(splits)):
        coarse = (image >> (8 * image.itemsize - 8)).astype(np.uint8)
        digests.append(hashlib.sha256(np.ascontiguousarray(image).data).digest())
        prints[number] = fingerprint(_picture(coarse))
        constant += bool((image == image.flat[0]).all())
        if places[number].startswith("train"):
            for own, channel in zip(histograms[labels[number]], coarse, strict=True):
                own += np.bincount(channel.ravel() // (256 // BINS), minlength=BINS)
        if number % _SHOWN_EVERY == 0:
            progress(f"{name}: {number} of {count} images read", number / count)
    progress(f"{name}: looking for near-copies", None)
    copies = exact_copies(digests)
    alike = _alike(prints, [copy for copy, _ in copies], [*splits.values()])
    across = sum(places[a].split()[0] != places[b].split()[0] for a, b in copies)
    contradicting = sum(bool(labels[a] != labels[b]) for a, b in copies)
    return Contents(
        tuple((places[a], places[b]) for a, b in copies),
        tuple((places[a], places[b]) for a, b in alike),
        across,
        contradicting,
        constant,
        histograms / np.maximum(histograms.sum(axis=2, keepdims=True), 1),
        tuple(_findings(len(copies), len(alike), across, contradicting, constant)),
    )


def _images(splits: dict[str, Records]) -> Iterator[NDArray[Any]]:
    for records in splits.values():
        for chunk in in_chunks(records.images):
            yield from chunk


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    """Turn (C, H, W) into a picture."""
    return Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1))


def _alike(
    prints: NDArray[np.uint64], copies: list[int], splits: list[Records]
) -> list[tuple[int, int]]:
    """Return (copy, original) of near-copies that are not one person's, without exact ones."""
    first = np.ones(len(prints), dtype=bool)
    first[copies] = False
    at = np.flatnonzero(first)
    found = [(int(at[copy]), int(at[original])) for copy, original in near_copies(prints[at])]
    persons = [records.persons for records in splits if records.persons is not None]
    if len(persons) < len(splits):
        return found
    owners = np.concatenate(persons)
    return [(copy, original) for copy, original in found if owners[copy] != owners[original]]


def _findings(
    copies: int, alike: int, across: int, contradicting: int, constant: int
) -> Iterator[str]:
    if copies:
        yield f"{copies} records are exact copies of others: ε for one record means less for them."
    if across:
        yield f"{across} of them have one side in training, the other in test."
    if contradicting:
        yield f"{contradicting} of them are under two classes."
    if alike:
        yield f"{alike} records look like another one that is not known to be the same person's."
    if constant:
        yield f"{constant} images have one value only."


def _shortened(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")
