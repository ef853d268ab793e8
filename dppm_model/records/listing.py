"""Pictures with labels and persons, as a source lists them before any is read."""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.records.nifti import Slices
from dppm_model.records.pictures import Picture
from dppm_model.records.window import AUTO, Window

_MISSING = {"", "nan", "none", "null", "na", "n/a", "?", "-"}
_ALL_SLICES = Slices()
SPLIT_NAMES = {
    "train": {"train", "training"},
    "test": {"test", "testing"},
    "val": {"val", "valid", "validation", "dev"},
}


@dataclass(frozen=True)
class Choices:
    """The decisions about a source that only its owner can take.

    ``label`` and ``person`` are columns of a table, or None; ``no_person`` protects records
    although the source names persons. ``pages`` makes each page of a file a record.
    ``drop_duplicates`` leaves out exact copies. ``as_written`` takes values that look like two
    spellings of one for different. ``slices`` are those of volumes, ``window`` is that of DICOM;
    ``refuse_text`` refuses images that may show writing.
    """

    label: str | None = None
    person: str | None = None
    no_person: bool = False
    pages: bool = False
    drop_duplicates: bool = False
    as_written: bool = False
    slices: Slices = _ALL_SLICES
    window: Window = AUTO
    refuse_text: bool = False


@dataclass(frozen=True)
class Listing:
    """Pictures in order, each with its class and perhaps person.

    ``held_out`` marks the test records where the source has a split of its own; ``notes`` are
    sentences for the owner; ``skipped`` are the names of what was passed over, by reason.
    ``classes`` are in the order of the labels.
    """

    pictures: list[Picture]
    labels: NDArray[np.str_]
    classes: tuple[str, ...]
    persons: NDArray[np.str_] | None = None
    held_out: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def studies(self) -> NDArray[np.str_] | None:
        """(n,) the DICOM study of each picture, under a pseudonym, if all have one."""
        found = [None if p.origin is None else p.origin.study for p in self.pictures]
        return None if None in found else np.array(found)

    def select(self, chosen: NDArray[np.bool_]) -> Listing:
        """Return some of the pictures; the classes stay."""
        return replace(
            self,
            pictures=[self.pictures[i] for i in np.flatnonzero(chosen)],
            labels=self.labels[chosen],
            persons=None if self.persons is None else self.persons[chosen],
            held_out=None if self.held_out is None else self.held_out[chosen],
        )


@dataclass(frozen=True)
class Published:
    """What is known of a published source beside its file.

    ``source`` says which it is, ``classes`` are names by label, ``notes`` go to the user.
    """

    source: str
    classes: Mapping[str, str]
    notes: tuple[str, ...]

    def named(self, listing: Listing) -> Listing:
        """Give a listing its classes' names, and the notes."""
        labels = [self.classes[label] for label in listing.labels.tolist()]
        return replace(
            listing,
            labels=np.array(labels),
            classes=tuple(self.classes[label] for label in listing.classes),
            notes=(*listing.notes, *self.notes),
        )


def split_of(name: str) -> str | None:
    """Return train, test or val if a folder or a value is called like one."""
    found = (split for split, names in SPLIT_NAMES.items() if name.strip().casefold() in names)
    return next(found, None)


def with_test(train: Listing, test: Listing) -> Listing:
    """Join a training and a test listing; raises DataError if only one of them names persons."""
    if (train.persons is None) != (test.persons is None):
        raise DataError(
            "Only one of the training and the test images name persons.",
            "Name them in both, or pass --no-person.",
        )
    persons = None
    if train.persons is not None and test.persons is not None:
        persons = np.concatenate([train.persons, test.persons])
    held_out = np.zeros(len(train), dtype=bool) if train.held_out is None else train.held_out
    return Listing(
        [*train.pictures, *test.pictures],
        np.concatenate([train.labels, test.labels]),
        tuple(dict.fromkeys([*train.classes, *test.classes])),
        persons,
        np.concatenate([held_out, np.ones(len(test), dtype=bool)]),
        (*train.notes, *test.notes),
        joined(train.skipped, test.skipped),
    )


def joined(
    one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Join names by reason."""
    reasons = dict.fromkeys([*one, *other])
    return {reason: [*one.get(reason, ()), *other.get(reason, ())] for reason in reasons}


def file_identity(path: Path) -> tuple[int, int]:
    """Return what all names and links of a file or folder share.

    Raises DataError if it cannot be reached, or is neither.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}).", "Bring it back, or leave it out."
        ) from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise DataError(f"{path} is neither a file nor a folder.", "Leave it out.")
    return found.st_dev, found.st_ino


def check_spelling(what: str, values: Iterable[str], *, as_written: bool) -> None:
    """Refuse values that look like two spellings of one, or like none at all.

    A person spelt in two ways would be two units, each with ε of its own.
    """
    spellings: dict[str, list[str]] = {}
    for value in sorted({*values}):
        spellings.setdefault(one_spelling(value), []).append(value)
    pairs = [same for same in spellings.values() if len(same) > 1]
    missing = [value for key, same in spellings.items() if key in _MISSING for value in same]
    if as_written or not (pairs or missing):
        return
    shown = [" and ".join(map(repr, same)) for same in pairs[:3]] + [repr(v) for v in missing[:3]]
    raise DataError(
        f"{len(pairs) + len(missing)} suspicious {what}: {'; '.join(shown)}.",
        "Give each one spelling, or pass --as-written if they are what they seem.",
    )


def is_missing(value: str) -> bool:
    """Say whether a value stands for none."""
    return one_spelling(value) in _MISSING


def one_spelling(value: str) -> str:
    """Return what all spellings of a value share: without case, blanks, signs, leading zeros."""
    text = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if re.fullmatch(r"[+-]?\d+([.,]\d*)?", text):
        whole, _, rest = text.replace(",", ".").partition(".")
        rest = rest.rstrip("0")
        return (whole.lstrip("+0") or "0") + (f".{rest}" if rest else "")
    return text
