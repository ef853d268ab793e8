"""People's own images, in any format that is listed here, into the local store."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import ConfigError, DataError
from dppm_model.progress import Progress, part, silent
from dppm_model.records.archives import archives_in
from dppm_model.records.copies import exact_copies, near_copies
from dppm_model.records.dicom import is_dicom
from dppm_model.records.folders import list_folder
from dppm_model.records.hold_out import check_classes, check_sides, hold_out
from dppm_model.records.intake import Intake
from dppm_model.records.listing import Choices, Listing, Published, joined, with_test
from dppm_model.records.loose_tables import with_loose_tables
from dppm_model.records.npz import list_npz
from dppm_model.records.parquet import list_parquet
from dppm_model.records.patients import annotated, check_instances, with_patients
from dppm_model.records.pictures import Look, look_at
from dppm_model.records.site_key import SiteKey
from dppm_model.records.sources import DATASETS, data_root
from dppm_model.records.spool import Spool
from dppm_model.records.tables import list_csv
from dppm_model.records.volumes import with_volumes
from dppm_model.records.webdataset import list_webdataset
from dppm_model.records.writing import replacing, write_records

T = TypeVar("T")
R = TypeVar("R")
Say = Callable[[str], None]
_CHUNK = 32  # images written at once
_SHOWN_EVERY = 16  # images
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_TEST_FRACTION = 0.1
_NO_CHOICES = Choices()
_ARCHIVES = {".parquet": list_parquet, ".tar": list_webdataset}


def import_dataset(
    path: Path,
    name: str,
    *,
    root: Path | None = None,
    size: int | None = None,
    labels: Path | None = None,
    test: Path | None = None,
    test_fraction: float | None = None,
    choices: Choices = _NO_CHOICES,
    seed: int = 0,
    published: Published | None = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> Path:
    """Import images as data set ``name``.

    Returns the folder that holds the splits. Raises ConfigError or DataError naming the argument or
    the file, and the fix. The data set is then not there at all. One that exists is never replaced:
    runs and sites rely on its records.

    Parameters
    ----------
    path
        A folder with one sub-folder per class, perhaps inside ``train`` and ``test``; a CSV with
        columns ``file`` or ``SOPInstanceUID``, ``label`` and perhaps ``person`` and ``split``
        (files relative to the CSV); a MedMNIST npz; parquet files as of Hugging Face; tar files of
        WebDataset; a DICOMDIR. Files are DICOM, or what Pillow reads.
    root
        The local store; by default `data_root()`.
    size
        Pixels a side to resize to; needed where the images differ in size.
    labels
        A CSV of the images in ``path``, which is then a folder or DICOMDIR.
    test
        Images to hold out, in any of the formats.
    test_fraction
        Share held out for `dppm evaluate`, of each class, by whole persons if the data name them;
        None: a tenth, unless the source brings a test split.
    choices
        What only the owner of the images can decide.
    seed
        Of the choice of the test split.
    published
        What else is known of a published source.
    say
        Gets the summary, a sentence at a time.
    """
    if size is not None and size < 1:
        raise ConfigError(f"--size is {size}.", "Give a number of pixels above zero.")
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise ConfigError(f"--test-fraction is {test_fraction}.", "Give a number in [0, 1).")
    target = _free_place(name, root)
    key = SiteKey(target.parent)
    listing = with_patients(_list(path, test, labels, choices, key), choices)
    if listing.held_out is not None and test_fraction is not None:
        raise ConfigError(
            f"--test-fraction is {test_fraction}, but {path} has a test split.",
            "Leave one of them out.",
        )
    if published is not None:
        listing = published.named(listing)
    listing = with_volumes(listing, choices)
    check_sides(listing)
    with Spool(target.parent) as spool:
        looks = _read(listing, size, spool, name, part(progress, 0.0, 0.9))
        notes: list[str] = []
        listing, looks = _without_copies(listing, looks, choices, notes.append)
        if not choices.as_written:
            check_instances(listing)
        _report_text(listing, looks, choices, notes.append)
        grey = all(look.grey for look in looks)
        rule = "the source's own split" if test is None else f"all of {test}"
        if listing.held_out is None:
            fraction = _TEST_FRACTION if test_fraction is None else test_fraction
            chosen = hold_out(listing, fraction, np.random.default_rng(seed))
            listing = replace(listing, held_out=chosen)
            whose = "records" if listing.studies is None else "whole studies"
            whose = whose if listing.persons is None else "whole persons"
            rule = f"{fraction:.4g} of each class, by {whose}, seed {seed}" if fraction else "none"
        check_classes(listing)
        notes += [*listing.notes, *_summary(listing, looks, grey)]
        source = str(path.absolute()) if published is None else published.source
        intake = Intake.of(source, rule, listing.skipped, [look.size for look in looks], notes)
        if any(picture.origin is not None for picture in listing.pictures):
            key.keep()
        _write(listing, target, name, grey, spool, intake, part(progress, 0.9, 0.1))
    for note in notes:
        say(note)
    return target


def _list(
    path: Path, test: Path | None, labels: Path | None, choices: Choices, key: SiteKey
) -> Listing:
    """List a source, and another one as its test split."""
    if choices.person is not None and choices.no_person:
        raise ConfigError("--person and --no-person were given.", "Leave one of them out.")
    listing = _list_source(path, choices, key, labels)
    if test is None:
        return listing
    more = _list_source(test, choices, key)
    for one, whose in ((listing, path), (more, test)):
        if one.held_out is not None:
            raise ConfigError(
                f"--test is {test}, but {whose} has a test split.",
                "Leave out --test, or name a part.",
            )
    return with_test(listing, more)


def _list_source(path: Path, choices: Choices, key: SiteKey, labels: Path | None = None) -> Listing:
    if labels is not None:
        if not path.is_dir() and not (path.is_file() and is_dicom(path)):
            raise DataError(
                f"{path} is no folder or DICOMDIR.", "Name that of the images beside --labels."
            )
        return list_csv(labels, choices, key, path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return list_csv(path, choices, key)
    for suffix, list_archives in _ARCHIVES.items():
        files, others = archives_in(path, suffix)
        if files:
            listing = list_archives(path, files, choices)
            return replace(listing, skipped=joined(listing.skipped, others))
    if path.is_file() and path.suffix.lower() != ".npz" and is_dicom(path):
        raise DataError(
            f"{path} names no classes.", "Name them in a CSV: --labels CSV (SOPInstanceUID,label)."
        )
    if not path.is_dir() and not (path.suffix.lower() == ".npz" and path.is_file()):
        raise DataError(
            f"{path} is not a folder, nor a .csv, .npz, .parquet or .tar file.",
            "See `dppm data import --help` and docs/data.md for the formats.",
        )
    for option in ("label", "person"):
        if (column := getattr(choices, option)) is not None:
            raise ConfigError(
                f"--{option} is {column!r}, but {path} has no columns.",
                "List the images in a CSV: file,label,person.",
            )
    if path.is_dir():
        return with_loose_tables(list_folder(path, choices, key), path, choices)
    return list_npz(path, key.store)


def _without_copies(
    listing: Listing, looks: list[Look], choices: Choices, say: Say
) -> tuple[Listing, list[Look]]:
    """Report copies; leave out the exact ones if that was asked for."""
    names = [picture.name for picture in listing.pictures]
    exact = exact_copies([look.digest for look in looks])
    apart = [pair for pair in exact if not _of_one(listing, *pair)]
    if apart and choices.drop_duplicates:
        copy, original = apart[0]
        raise DataError(
            f"{len(apart)} exact copies have another class or person than their originals, such as "
            f"{names[copy]} of {names[original]}.",
            "Decide whose they are; --drop-duplicates would keep the first of each.",
        )
    if exact:
        copy, original = exact[0]
        done = "left out" if choices.drop_duplicates else "kept; --drop-duplicates leaves them out"
        say(f"{len(exact)} exact copies, such as {names[copy]} of {names[original]}: {done}.")
    if apart:
        copy, original = apart[0]
        say(
            f"{len(apart)} of them under another class or person, such as {names[copy]} of "
            f"{names[original]}."
        )
    kept = np.ones(len(listing), dtype=bool)
    kept[[copy for copy, _ in exact]] = False
    at = np.flatnonzero(kept)
    prints = np.stack([looks[i].fingerprint for i in at])
    near = [(int(at[copy]), int(at[original])) for copy, original in near_copies(prints)]
    if near := [pair for pair in near if not _of_one_person(listing, *pair)]:
        copy, original = near[0]
        cure = (
            "ε for one record means little: name whose they are in a column person."
            if listing.persons is None
            else "give them one person."
        )
        say(
            f"{len(near)} images look like another one, such as {names[copy]} like "
            f"{names[original]}. If they show the same, {cure}"
        )
    if not choices.drop_duplicates:
        return listing, looks
    left_out = {
        "exact copies": [f"{names[copy]}, of {names[original]}" for copy, original in exact]
    }
    skipped = joined(listing.skipped, left_out if exact else {})
    return replace(listing.select(kept), skipped=skipped), [looks[i] for i in at]


def _report_text(listing: Listing, looks: list[Look], choices: Choices, say: Say) -> None:
    """Report images that may show writing, or refuse them if that was asked for."""
    in_corner = [p.name for p, look in zip(listing.pictures, looks, strict=True) if look.text]
    for names, what in (
        (annotated(listing), "say that text is burned in (BurnedInAnnotation)"),
        (in_corner, "may have text in a corner"),
    ):
        if not names:
            continue
        found = f"{len(names)} images {what}, such as {names[0]}"
        if choices.refuse_text:
            raise DataError(f"{found}.", "Blank it or crop it off, or leave these images out.")
        say(f"{found}: a generator may learn it; --refuse-text refuses them.")


def _of_one(listing: Listing, copy: int, original: int) -> bool:
    same_person = listing.persons is None or _of_one_person(listing, copy, original)
    return bool(listing.labels[copy] == listing.labels[original]) and same_person


def _of_one_person(listing: Listing, copy: int, original: int) -> bool:
    persons = listing.persons
    return persons is not None and bool(persons[copy] == persons[original])


def _read(
    listing: Listing, size: int | None, spool: Spool, name: str, progress: Progress
) -> list[Look]:
    """Read every picture once, and keep its pixels; raises DataError at the first wrong one."""
    looks: list[Look] = []
    readers = _in_order(lambda picture: look_at(picture, size), listing.pictures)
    for picture, (look, pixels) in zip(listing.pictures, readers, strict=True):
        looks.append(look)
        if size is None and look.size != looks[0].size:
            raise DataError(
                f"{picture.name} is {look.size[0]}x{look.size[1]} pixels, the first image "
                f"{looks[0].size[0]}x{looks[0].size[1]}.",
                "Pass --size to resize all.",
            )
        spool.add(picture, pixels)
        if len(looks) % _SHOWN_EVERY == 0:
            progress(
                f"{name}: {len(looks)} of {len(listing)} images read", len(looks) / len(listing)
            )
    return looks


def _in_order(what: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply a function on all cores, and yield its results; few of them are waiting at a time."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(what, item))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write(
    listing: Listing,
    target: Path,
    name: str,
    grey: bool,
    spool: Spool,
    intake: Intake,
    progress: Progress,
) -> None:
    """Write both splits; a hidden folder gets its name when all of them are whole."""
    assert listing.held_out is not None
    places = {name: number for number, name in enumerate(listing.classes)}
    labels = np.array([places[label] for label in listing.labels], dtype=np.int64)
    persons = None
    if listing.persons is not None:
        persons = np.unique(listing.persons, return_inverse=True)[1]
    written = 0

    def images(index: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        nonlocal written
        for start in range(0, len(index), _CHUNK):
            chosen = [listing.pictures[i] for i in index[start : start + _CHUNK]]
            yield spool.take(chosen, 1 if grey else 3)
            written += len(chosen)
            progress(f"{name}: {written} images written", written / len(listing))

    with replacing(target) as made:
        for split, side in (("train", False), ("test", True)):
            index = np.flatnonzero(listing.held_out == side)
            if index.size:
                write_records(
                    made / split,
                    images(index),
                    labels[index],
                    name=name,
                    split=split,
                    classes=listing.classes,
                    persons=None if persons is None else persons[index],
                )
        intake.write(made)
        if target.exists():
            raise ConfigError(
                f"--name is {name!r}, and {target} was created meanwhile.", "Take another."
            )


def _free_place(name: str, root: Path | None) -> Path:
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
    return target


def _summary(listing: Listing, looks: list[Look], grey: bool) -> Iterator[str]:
    """Yield what was taken, in sentences."""
    assert listing.held_out is not None
    if listing.skipped:
        counted = sorted((why, len(names)) for why, names in listing.skipped.items())
        yield f"Passed over: {', '.join(f'{count} {why}' for why, count in counted)}."
    in_colour = sum(look.in_colour for look in looks)
    if grey and in_colour:
        yield f"{in_colour} images are stored in colour without having any: kept as grey."
    elif not grey and (plain := sum(look.grey for look in looks)):
        yield f"{plain} of {len(looks)} images are grey, and become RGB as the others."
    for split, side in (("Training", False), ("Test", True)):
        own = listing.held_out == side
        counts = Counter(listing.labels[own].tolist())
        shown = ", ".join(f"{name} {counts[name]}" for name in listing.classes[:12])
        more = ", …" if len(listing.classes) > 12 else ""
        whose = "" if listing.persons is None else f" of {len({*listing.persons[own]})} persons"
        yield f"{split}: {own.sum()} images{whose} ({shown}{more})."
