"""A CSV of files with labels and perhaps persons, read without a guess about what is a person."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import numpy as np

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.listing import (
    Choices,
    Listing,
    check_spelling,
    file_identity,
    page_numbers,
    split_of,
)
from dppm_model.records.pictures import FilePicture

_ROLES = {  # of columns, by their names without blanks, signs and case
    "file": {"file", "filename", "filepath", "path", "image", "imagepath", "imagefile"},
    "label": {"label", "labels", "class", "classname", "target", "category", "diagnosis"},
    "person": {
        *("person", "personid", "patient", "patientid", "subject", "subjectid"),
        *("participant", "participantid", "individual", "individualid"),
    },
    "split": {"split", "subset"},
}
# Parts of the names of columns that may say whose a picture is.
_IDENTITIES = (
    *("person", "patient", "subject", "particip", "individual", "donor", "case", "mrn", "name"),
    *("birth", "dob", "ssn", "insurance", "study", "series", "accession", "visit", "family"),
    *("owner", "animal", "client", "user", "member"),
)
_BLANK = "\ufeff\u200b\u2060"  # blanks that `str.strip` leaves


def list_csv(path: Path, choices: Choices) -> Listing:
    """List the rows of a CSV with columns ``file``, ``label``, perhaps ``person`` and ``split``."""
    head, rows = _read(path)
    columns, notes = _columns(path, head, rows, choices)
    values = {role: [row[column] for _, row in rows] for role, column in columns.items()}
    for role, column in columns.items():
        for (line, _), value in zip(rows, values[role], strict=True):
            if not value:
                raise DataError(f"{path}, row {line}: {head[column]} is empty.", "Fill it in.")
    for role, what in (("label", "labels"), ("person", "persons")):
        check_spelling(f"{what} in {path}", values.get(role, ()), as_written=choices.as_written)
    pictures, repeats = _pictures(path, rows, values["file"], choices)
    splits = [split_of(value) for value in values.get("split", ())]
    if None in splits:
        wrong = splits.index(None)
        raise DataError(
            f"{path}, row {rows[wrong][0]}: the split is {values['split'][wrong]!r}.",
            "Write train, val or test.",
        )
    if splits:
        notes.append(f"Column {head[columns['split']]!r} says what is held out; val joins train.")
    persons = np.repeat(values["person"], repeats) if "person" in columns else None
    return Listing(
        [*pictures],
        np.repeat(values["label"], repeats),
        tuple(sorted({*values["label"]})),
        persons,
        np.repeat([split == "test" for split in splits], repeats) if splits else None,
        tuple(notes),
    )


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the head and the rows, each with its number; all values trimmed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[_trimmed(value) for value in row] for row in csv.reader(file, strict=True)]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8 ({error}).", "Save it as UTF-8.") from None
    head = lines[0] if lines else []
    rows = [(number, row) for number, row in enumerate(lines[1:], start=2) if row]
    if not rows:
        raise DataError(f"{path} has no rows.", "Start the file with: file,label[,person]")
    for number, row in rows:
        # One comma too many would shift the values of a row into the next columns.
        if len(row) != len(head):
            raise DataError(
                f"{path}, row {number} has {len(row)} values for {len(head)} columns.",
                'Put a value that has a comma into quotes ("a, b"), and leave none out.',
            )
    unused = [i for i, name in enumerate(head) if not name and not any(r[i] for _, r in rows)]
    kept = [i for i in range(len(head)) if i not in unused]
    head, rows = [head[i] for i in kept], [(n, [row[i] for i in kept]) for n, row in rows]
    keys = [_key(name) for name in head]
    for i, key in enumerate(keys):
        if not key or key in keys[:i]:
            raise DataError(
                f"{path}: column {i + 1} is called {head[i]!r}, like another or like none.",
                "Give each column a name of its own.",
            )
    return head, rows


def _columns(
    path: Path, head: list[str], rows: list[tuple[int, list[str]]], choices: Choices
) -> tuple[dict[str, int], list[str]]:
    """Decide which column has which role; return also what to say about it."""
    keys = [_key(name) for name in head]
    columns, notes = {}, []
    for role, names in _ROLES.items():
        found = [i for i, key in enumerate(keys) if key in names]
        if role == "person" and choices.no_person:
            if found:
                notes.append(f"{_named(head, found)} not used: ε protects records, not persons.")
            continue
        if role == "person" and choices.person is not None:
            found = [i for i, key in enumerate(keys) if key == _key(choices.person)]
            if not found:
                raise ConfigError(
                    f"--person is {choices.person!r}, but {path} has the columns "
                    f"{', '.join(head)}.",
                    "Name one of these.",
                )
        if len(found) > 1:
            cure = "Pass --person with one of them." if role == "person" else "Keep one of them."
            raise DataError(f"{path}: {_named(head, found)} could each be the {role}.", cure)
        if found:
            columns[role] = found[0]
            if head[found[0]] != role:
                notes.append(f"Column {head[found[0]]!r} is taken as the {role}.")
    if missing := {"file", "label"} - columns.keys():
        raise DataError(
            f"{path} has no column {' and no column '.join(sorted(missing))} "
            f"among {', '.join(head)}.",
            "Start the file with: file,label[,person]",
        )
    rest = [
        i for i in range(len(head)) if i not in columns.values() and keys[i] not in _ROLES["person"]
    ]
    if "person" not in columns and not choices.no_person:
        whose = [i for i in rest if _may_name_persons(keys[i], [row[i] for _, row in rows])]
        if whose:
            raise DataError(
                f"{path}: {_named(head, whose)} may say whose the images are, and there is no "
                "column person.",
                f"Pass --person {head[whose[0]]!r} to protect whole persons, or --no-person.",
            )
    if rest:
        notes.append(f"{_named(head, rest)} not used.")
    return columns, notes


def _may_name_persons(key: str, values: list[str]) -> bool:
    """Say whether a column looks like an identity; one value a row names no one twice."""
    like = key.endswith("id") or any(part in key for part in _IDENTITIES)
    return like and 1 < len({*values}) < len(values)


def _pictures(
    path: Path, rows: list[tuple[int, list[str]]], names: list[str], choices: Choices
) -> tuple[list[FilePicture], list[int]]:
    """Return the pictures, and how many each row has."""
    seen: dict[tuple[int, int], int] = {}
    pictures, repeats = [], []
    for (line, _), name in zip(rows, names, strict=True):
        file = path.parent / name
        # A file listed twice would be twice in the sum, and perhaps on both sides of the split.
        if (first := seen.setdefault(file_identity(file), line)) != line:
            raise DataError(
                f"{path}, row {line} names {name} again, as row {first} does.",
                "Name each file once.",
            )
        pages = page_numbers(file, pages=choices.pages)
        pictures += [FilePicture(file, page) for page in pages]
        repeats.append(len(pages))
    return pictures, repeats


def _named(head: list[str], found: list[int]) -> str:
    names = ", ".join(repr(head[i]) for i in found)
    return f"Column{'s' if len(found) > 1 else ''} {names}"


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if c.isalnum())


def _trimmed(value: str) -> str:
    return value.strip().strip(_BLANK).strip()
