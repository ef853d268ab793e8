"""Whose a DICOM image is: its PatientID as the person, checked before it becomes a unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from dppm_model.errors import DataError
from dppm_model.records.listing import Choices, Listing
from dppm_model.records.pictures import Origin, Picture

_MOST_WINDOWS = 4  # that are listed


def with_patients(listing: Listing, choices: Choices) -> Listing:
    """Take patients as persons where DICOM names them and no CSV does; add notes.

    Raises DataError if an image names no patient, or patients and persons or studies do not fit
    together: a person spelt in two ways would be two units, each with ε of its own.
    """
    named = [(p, p.origin) for p in listing.pictures if p.origin is not None]
    if not named:
        return listing
    notes = [*listing.notes, *_notes(named)]
    if not choices.as_written:
        _check_patients(named, listing)
    if listing.persons is not None:
        return replace(listing, notes=tuple(notes))
    if choices.no_person:
        notes.append("Patients are not used: ε protects records, not persons.")
        return replace(listing, notes=tuple(notes))
    patients = [None if p.origin is None else p.origin.patient for p in listing.pictures]
    if None in patients:
        first = listing.pictures[patients.index(None)].name
        raise DataError(
            f"{patients.count(None)} of {len(patients)} images name no patient (PatientID), such "
            f"as {first}.",
            "Name persons in a CSV (--labels), or pass --no-person to protect single records.",
        )
    count = len({*patients})
    notes.append(f"PatientID is taken as the person, under a pseudonym: {count} patients.")
    return replace(listing, persons=np.array(patients), notes=tuple(notes))


def check_instances(listing: Listing) -> None:
    """Refuse two files of one DICOM image: it would be counted twice."""
    seen: dict[tuple[str, str], str] = {}
    for picture in listing.pictures:
        if picture.origin is None or picture.origin.instance is None:
            continue
        page = str(getattr(picture, "page", None))
        first = seen.setdefault((picture.origin.instance, page), picture.name)
        if first != picture.name:
            raise DataError(
                f"{picture.name} and {first} are the same image: their SOPInstanceUID is one.",
                "Keep one of them, or pass --as-written if they are two images.",
            )


def annotated(listing: Listing) -> list[str]:
    """Return the names of the images that say of themselves that text is burned in."""
    return [p.name for p in listing.pictures if p.origin is not None and p.origin.annotated]


def _check_patients(named: list[tuple[Picture, Origin]], listing: Listing) -> None:
    """Refuse what points at one patient under several names."""
    persons: dict[str, str] = {}
    if listing.persons is not None:
        names = [picture.name for picture in listing.pictures]
        persons = dict(zip(names, listing.persons.tolist(), strict=True))
    for what, found in (
        ("have two spellings of one PatientID", [(p, o.spelling, o.patient) for p, o in named]),
        ("have two PatientIDs in one study", [(p, o.study, o.patient) for p, o in named]),
        (
            "have one PatientID, and are two persons in the CSV",
            [(p, o.patient, persons.get(p.name)) for p, o in named],
        ),
    ):
        _check_one(what, found)


def _check_one(what: str, found: Iterable[tuple[Picture, str | None, str | None]]) -> None:
    """Refuse a group with two members; ``found`` has (image, group, member)."""
    first: dict[str, tuple[str, str]] = {}
    for picture, group, member in found:
        if group is None or member is None:
            continue
        other, there = first.setdefault(group, (member, picture.name))
        if other != member:
            raise DataError(
                f"{there} and {picture.name} {what}.",
                "Correct them, or pass --as-written if they are what they seem.",
            )


def _notes(named: list[tuple[Picture, Origin]]) -> Iterator[str]:
    windows = Counter(origin.window for _, origin in named).most_common()
    shown = "; ".join(f"{window} ({count})" for window, count in windows[:_MOST_WINDOWS])
    more = f"; and {len(windows) - _MOST_WINDOWS} others" if len(windows) > _MOST_WINDOWS else ""
    yield f"{len(named)} images are DICOM. Windows: {shown}{more}."
    for chosen, what in (
        ([p.name for p, o in named if o.overlay], "have overlays, which are not drawn"),
        ([p.name for p, o in named if o.localizer], "are localizers"),
    ):
        if chosen:
            yield f"{len(chosen)} images {what}, such as {chosen[0]}."
