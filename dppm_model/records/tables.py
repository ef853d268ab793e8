"""A CSV of files with labels and perhaps persons, read without a guess about what is a person."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.dicom import instances_of
from dppm_model.records.folders import image_files
from dppm_model.records.listing import Choices, Listing, check_spelling, file_identity, split_of
from dppm_model.records.picture_files import pictures_in
from dppm_model.records.pictures import Picture
from dppm_model.records.site_key import SiteKey

_ROLES = {  # of columns, by their names without blanks, signs and case
    "instance": {"sopinstanceuid", "instanceuid", "sopuid"},
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


@dataclass(frozen=True)
class Table:
    """A head and rows of text, each row with its number, from ``source``."""

    source: Path
    head: list[str]
    rows: list[tuple[int, list[str]]]


def list_csv(path: Path, choices: Choices, key: SiteKey, images: Path | None = None) -> Listing:
    """List the rows of a CSV with columns ``file``, ``label``, perhaps ``person`` and ``split``.

    In place of ``file``, ``SOPInstanceUID`` names DICOM images. ``images`` is the folder they are
    in, or its DICOMDIR; by default the CSV's folder.
    """
    table = _read(path)
    unnamed: list[str] = []

    def pictures_of(values: dict[str, list[str]]) -> tuple[list[Picture], list[int]]:
        named = values.get("file", values.get("instance", []))
        files, others = _files(table, values, images or path.parent)
        unnamed.extend(map(str, others))
        lines = (line for line, _ in table.rows)
        return _pictures(path, [*zip(lines, named, files, strict=True)], choices, key)

    listing = list_table(table, choices, pictures_of)
    return replace(
        listing, skipped={"images that the CSV does not name": unnamed} if unnamed else {}
    )


def list_table(
    table: Table,
    choices: Choices,
    pictures_of: Callable[[dict[str, list[str]]], tuple[list[Picture], list[int]]],
) -> Listing:
    """List the rows of a table.

    ``pictures_of`` gets the values of the columns by their roles, such as ``file``, and returns the
    pictures and how many each row has. Raises DataError or ConfigError if it is unclear what a
    column or a value means.
    """
    path, head, rows = table.source, table.head, table.rows
    columns, notes = _columns(table, choices)
    values = {role: [row[column] for _, row in rows] for role, column in columns.items()}
    for role, column in columns.items():
        for (line, _), value in zip(rows, values[role], strict=True):
            if not value:
                raise DataError(f"{path}, row {line}: {head[column]} is empty.", "Fill it in.")
    for role, what in (("label", "labels"), ("person", "persons")):
        check_spelling(f"{what} in {path}", values.get(role, ()), as_written=choices.as_written)
    pictures, repeats = pictures_of(values)
    if "person" not in columns and all(picture.origin is None for picture in pictures):
        _check_identities(table, columns, choices)
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
        pictures,
        np.repeat(values["label"], repeats),
        tuple(sorted({*values["label"]})),
        persons,
        np.repeat([split == "test" for split in splits], repeats) if splits else None,
        tuple(notes),
    )


def _read(path: Path) -> Table:
    """Read a CSV, all values trimmed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[trimmed(value) for value in row] for row in csv.reader(file, strict=True)]
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
    return Table(path, head, rows)


def _columns(table: Table, choices: Choices) -> tuple[dict[str, int], list[str]]:
    """Decide which column has which role; return also what to say about it."""
    path, head = table.source, table.head
    keys = [_key(name) for name in head]
    columns, notes = {}, []
    for role, names in _ROLES.items():
        found = [i for i, key in enumerate(keys) if key in names]
        if role == "person" and choices.no_person:
            if found:
                notes.append(f"{_named(head, found)} not used: ε protects records, not persons.")
            continue
        named = {"person": choices.person, "label": choices.label}.get(role)
        if named is not None:
            found = [i for i, key in enumerate(keys) if key == _key(named)]
            if not found:
                raise ConfigError(
                    f"--{role} is {named!r}, but {path} has the columns {', '.join(head)}.",
                    "Name one of these.",
                )
        if len(found) > 1:
            option = role in ("person", "label")
            cure = f"Pass --{role} with one of them." if option else "Keep one of them."
            raise DataError(f"{path}: {_named(head, found)} could each be the {role}.", cure)
        if found:
            columns[role] = found[0]
            if head[found[0]] != role:
                notes.append(f"Column {head[found[0]]!r} is taken as the {role}.")
    if "file" in columns:
        columns.pop("instance", None)
    needed = {"instance" if "instance" in columns else "file", "label"}
    if missing := needed - columns.keys():
        raise DataError(
            f"{path} has no column {' and no column '.join(sorted(missing))} "
            f"among {', '.join(head)}.",
            "Start the file with: file,label[,person]; or pass --label COLUMN.",
        )
    if rest := _unused(head, columns):
        notes.append(f"{_named(head, rest)} not used.")
    return columns, notes


def _unused(head: list[str], columns: dict[str, int]) -> list[int]:
    return [
        i
        for i, name in enumerate(head)
        if i not in columns.values() and _key(name) not in _ROLES["person"]
    ]


def _check_identities(table: Table, columns: dict[str, int], choices: Choices) -> None:
    """Refuse an unused column that may say whose the images are, unless that was decided."""
    head = table.head
    whose = [
        i
        for i in _unused(head, columns)
        if _may_name_persons(_key(head[i]), [row[i] for _, row in table.rows])
    ]
    if whose and not choices.no_person:
        raise DataError(
            f"{table.source}: {_named(head, whose)} may say whose the images are, and there is no "
            "column person.",
            f"Pass --person {head[whose[0]]!r} to protect whole persons, or --no-person.",
        )


def _may_name_persons(key: str, values: list[str]) -> bool:
    """Say whether a column looks like an identity; one value a row names no one twice."""
    rest = re.sub("class(name)?", " ", key)  # the name of a class is nobody's; "class n" has no ssn
    like = rest.endswith("id") or any(part in rest for part in _IDENTITIES)
    return like and 1 < len({*values}) < len(values)


def _files(
    table: Table, values: dict[str, list[str]], images: Path
) -> tuple[list[Path], list[Path]]:
    """Return the file of each row, and the DICOM images that no row names."""
    if "file" in values:
        folder = images if images.is_dir() else images.parent
        return [folder / name for name in values["file"]], []
    found = instances_of(image_files(images) if images.is_dir() else [images])
    for (line, _), name in zip(table.rows, values["instance"], strict=True):
        if name not in found:
            raise DataError(
                f"{table.source}, row {line}: no file in {images} is the DICOM image {name}.",
                "Bring that file, or leave the row out.",
            )
    named = {*values["instance"]}
    return [found[n] for n in values["instance"]], [f for n, f in found.items() if n not in named]


def _pictures(
    path: Path, places: list[tuple[int, str, Path]], choices: Choices, key: SiteKey
) -> tuple[list[Picture], list[int]]:
    """Return the pictures, and how many each row has; ``places`` are rows, names and files."""
    seen: dict[tuple[int, int], int] = {}
    pictures: list[Picture] = []
    repeats = []
    for line, name, file in places:
        # A file listed twice would be twice in the sum, and perhaps on both sides of the split.
        if (first := seen.setdefault(file_identity(file), line)) != line:
            raise DataError(
                f"{path}, row {line} names {name} again, as row {first} does.",
                "Name each file once.",
            )
        own = pictures_in(file, choices, key)
        if not own:
            raise DataError(
                f"{path}, row {line}: {name} is DICOM without an image.", "Leave that row out."
            )
        pictures += own
        repeats.append(len(own))
    return pictures, repeats


def _named(head: list[str], found: list[int]) -> str:
    names = ", ".join(repr(head[i]) for i in found)
    return f"Column{'s' if len(found) > 1 else ''} {names}"


def role_of(name: str) -> str | None:
    """Return the role of a column with this name, if it is one of the usual names."""
    return next((role for role, names in _ROLES.items() if _key(name) in names), None)


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if c.isalnum())


def trimmed(value: str) -> str:
    """Return a value without blanks around it."""
    return value.strip().strip(_BLANK).strip()
