"""Parquet files as Hugging Face lays them out: columns of images, labels, perhaps persons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

from dppm_model.errors import DataError
from dppm_model.optional import needed
from dppm_model.records.archives import with_splits
from dppm_model.records.listing import Choices, Listing
from dppm_model.records.pictures import EncodedPicture, Picture
from dppm_model.records.tables import Table, list_table, role_of, trimmed

_EXTRA = "parquet"
Groups = Callable[[Path, str, int], Any]
_ONE = Lock()  # two threads that need one group read it once


@dataclass(frozen=True)
class _Layout:
    """The columns of a file: that of images, those of text, and the class names by column."""

    image: str
    others: tuple[str, ...]
    unused: tuple[str, ...]
    classes: dict[str, list[str]]


def list_parquet(path: Path, files: list[Path], choices: Choices) -> Listing:
    """List the rows of parquet files; no image is read yet.

    Labels with a ``ClassLabel`` in the schema's metadata get its names, in its order. The files'
    names tell the splits (``train-00000-of-00002.parquet``, ``test/0000.parquet``), if they name
    both sides. Raises ConfigError if pyarrow is missing, DataError if files are damaged, or it is
    unclear which column holds what.
    """
    layouts = [_layout(file) for file in files]
    first = layouts[0]
    for file, layout in zip(files, layouts, strict=True):
        if layout != first:
            raise DataError(
                f"{file} has other columns, types or class names than {files[0]}.",
                "Import them one by one, or write them with one schema.",
            )
    pictures: list[Picture] = []
    rows: list[tuple[int, list[str]]] = []
    counts: list[int] = []
    groups = lru_cache(maxsize=2)(_group)  # readers go through the rows in order
    for file in files:
        for picture, values in _rows(file, first, groups):
            pictures.append(picture)
            rows.append((len(rows) + 1, [picture.name, *values]))
        counts.append(len(rows) - sum(counts))
    if not rows:
        raise DataError(f"{path} has no rows.", "Bring images.")
    table = Table(path, ["file", *first.others], rows)
    listing = list_table(table, choices, lambda _: (pictures, [1] * len(pictures)))
    listing = with_splits(listing, path, files, counts)
    names = [name for own in first.classes.values() for name in own]
    order = {name: place for place, name in reversed([*enumerate(names)])}
    notes = [f"Column {name!r} not used." for name in first.unused]
    return replace(
        listing,
        classes=tuple(sorted(listing.classes, key=lambda name: (order.get(name, 0), name))),
        notes=(*listing.notes, *notes),
    )


def _opened(path: Path) -> Any:
    parquet = needed("pyarrow.parquet", _EXTRA)
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # Arrow's errors share no class but OSError and ValueError
        raise DataError(f"{path} is no readable parquet file ({error}).", "Get it again.") from None


def _layout(path: Path) -> _Layout:
    """Find the columns of a file."""
    types = needed("pyarrow", _EXTRA).types
    schema = _opened(path).schema_arrow
    features = _features(schema, path)
    kinds = {field.name: field.type for field in schema}
    images = [n for n in kinds if features.get(n, {}).get("_type") == "Image"] or [
        name
        for name, kind in kinds.items()
        if types.is_binary(kind)
        or types.is_large_binary(kind)
        or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    ]
    if len(images) != 1:
        raise DataError(
            f"{path} has {len(images)} columns of images among {', '.join(kinds)}.",
            "Give it one column of encoded images: bytes, or a struct of bytes and path.",
        )
    plain = {
        name: not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))
        and role_of(name) != "file"
        for field in schema
        if field.name != images[0]
        for name, kind in _leaves(field)
    }
    classes = {
        name: [str(one) for one in feature["names"]]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel" and plain.get(name)
    }
    return _Layout(
        images[0],
        tuple(name for name, is_plain in plain.items() if is_plain),
        tuple(name for name, is_plain in plain.items() if not is_plain),
        classes,
    )


def _leaves(field: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and type of a column, or of what is inside its struct: ``patient.id``."""
    if needed("pyarrow", _EXTRA).types.is_struct(field.type):
        for inner in field.flatten():
            yield from _leaves(inner)
    else:
        yield field.name, field.type


def _features(schema: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Return what the metadata for `datasets` says of the columns, if it is there."""
    try:
        raw = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        found = raw.get("info", {}).get("features", {})
        return {str(name): one for name, one in found.items() if isinstance(one, dict)}
    except (ValueError, AttributeError):
        raise DataError(
            f"{path}: the metadata 'huggingface' of its schema is damaged.", "Write it again."
        ) from None


def _rows(path: Path, layout: _Layout, groups: Groups) -> Iterator[tuple[Picture, list[str]]]:
    """Yield the picture of each row, and its other values as text."""
    file = _opened(path)
    done = 0
    for group in range(file.num_row_groups):
        try:
            table = file.read_row_group(group, columns=[*layout.others])
            while [*table.flatten().column_names] != [*table.column_names]:
                table = table.flatten()
            columns = table.to_pydict()
        except Exception as error:
            raise _damaged(path, error) from None
        for index in range(file.metadata.row_group(group).num_rows):
            name = f"{path}, row {done + index + 1}"
            read = partial(_image, groups, path, layout.image, group, index, name)
            values = [
                _text(columns[column][index], layout.classes.get(column), name, column)
                for column in layout.others
            ]
            yield EncodedPicture(name, read), values
        done += file.metadata.row_group(group).num_rows


def _text(value: Any, classes: list[str] | None, name: str, column: str) -> str:
    if value is None:
        return ""
    if classes is None:
        return trimmed(str(value))
    if not 0 <= value < len(classes):
        raise DataError(
            f"{name}: {column} is {value}, which is none of its {len(classes)} classes.",
            "Leave out rows without a label.",
        )
    return trimmed(classes[value])


def _image(groups: Groups, path: Path, column: str, group: int, index: int, name: str) -> bytes:
    """Read the encoded image of a row."""
    with _ONE:
        value = groups(path, column, group)[index].as_py()
    content = value["bytes"] if isinstance(value, dict) else value
    if not content:
        raise DataError(f"{name} holds no image.", "Leave it out, or embed the file's content.")
    return bytes(content)


def _group(path: Path, column: str, group: int) -> Any:
    """Read the images of a row group."""
    try:
        return _opened(path).read_row_group(group, columns=[column]).column(0)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged ({error}).", "Get it again.")
