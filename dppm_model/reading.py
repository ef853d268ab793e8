"""Read files that may be damaged or planted: every fault becomes the caller's own refusal.

A damaged file can raise almost anything, too much to name at every reader: nesting that exhausts
the stack, numbers of a million digits, invalid UTF-8, arrays larger than the memory, a folder in
its place, a FIFO without a writer.
"""

from __future__ import annotations

import io
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import ConfigError, DppmError
from dppm_model.locks import open_file

T = TypeVar("T")
_LONGEST = 200  # characters of a reason


@contextmanager
def reading(what: Path | str, kind: type[DppmError], hint: str) -> Iterator[None]:
    """Turn any exception of a block that reads a file into one refusal.

    Refusals of the project pass as they are.

    ``what`` names the file in the message; ``kind`` and ``hint`` are the refusal's.
    """
    try:
        yield
    except DppmError:
        raise
    except Exception as error:
        raise kind(f"{what} cannot be read: {reason(error)}.", hint) from None


def reason(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    text = " ".join(str(error).split())[:_LONGEST].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_regular(path: Path) -> None:
    """Refuse anything but a file before a library opens it, which would wait for ever for a FIFO.

    Raises
    ------
    OSError
        Also if it is missing.
    """
    os.close(open_file(path, os.O_RDONLY, follow=True))


def read_bytes(path: Path, *, follow: bool = True) -> bytes:
    """Read a regular file, or one that is linked to: operators do so.

    ``follow`` allows a link. Raises OSError if it is missing or not a file.
    """
    with os.fdopen(open_file(path, os.O_RDONLY, follow=follow), "rb") as file:
        return file.read()


def read_text(path: Path) -> str:
    """Read a regular file of UTF-8 text, as it is: no line ending is changed.

    Raises OSError or UnicodeDecodeError.
    """
    return read_bytes(path).decode()


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in UTF-8 with finite numbers and text that can be written again.

    Raises ValueError or RecursionError for anything else.
    """
    if isinstance(text, bytes):
        text = text.decode()
    found = json.loads(text, parse_float=_finite, parse_constant=_finite)
    if "\\ud" in text.lower():  # half a character passes as JSON, and fails wherever it is used
        json.dumps(found, ensure_ascii=False).encode()
    return found


def read_json(path: Path) -> Any:
    """Read a regular file of JSON; raises as `parse_json` and `read_bytes` do."""
    return parse_json(read_bytes(path))


def read_toml(cls: type[T], path: Path, hint: str) -> T:
    """Build a dataclass from a TOML file whose keys are exactly its fields; lists become tuples.

    Raises
    ------
    ConfigError
        If a key is missing or unknown, ``cls`` refuses a value, or the file cannot be read, which
        ``hint`` is for.
    """
    with reading(path, ConfigError, hint):
        raw = tomllib.loads(read_text(path))
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        for wrong, what in ((known - raw.keys(), "not set"), (raw.keys() - known, "unknown")):
            if wrong:
                raise ConfigError(
                    f"{path}: {', '.join(sorted(wrong))} is {what}.",
                    f"{path.name} has exactly these keys: {', '.join(sorted(known))}.",
                )
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", error.hint) from None


def read_array(path: Path) -> NDArray[Any]:
    """Read a NumPy file into memory, running nothing in it; call it in a `reading` block."""
    content = io.BytesIO(read_bytes(path))
    array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array


def as_floats(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for fields of ``cls`` in which 1 is 1.0 where the field is a float."""
    hints = get_type_hints(cls)  # without what `Annotated` adds
    return {
        name: float(value) if hints.get(name) is float and type(value) is int else value
        for name, value in values.items()
    }


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number
