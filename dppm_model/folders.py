"""Folders that several commands work in: locks, lines that others appended, and what is there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dppm_model.errors import DppmError, StorageError
from dppm_model.locks import locked
from dppm_model.reading import parse_json, read_bytes, reading

_TRIES, _PAUSE_SECONDS = 3, 0.1


@contextmanager
def held(path: Path, refusal: Exception | None = None) -> Iterator[None]:
    """Hold a lock file for the length of a block, or fail at once.

    Raises BlockingIOError if another process holds it; ``refusal`` in its place, if given.
    """
    with contextlib.ExitStack() as stack:
        for left in reversed(range(_TRIES)):
            try:
                stack.enter_context(locked(path, how=fcntl.LOCK_EX | fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if not left:
                    raise refusal or error from None
                time.sleep(_PAUSE_SECONDS)  # `is_held` holds it for a moment, too
        yield


def is_held(path: Path) -> bool:
    """Say whether a process holds a lock file."""
    try:
        with locked(path, os.O_RDONLY, fcntl.LOCK_SH | fcntl.LOCK_NB):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def read_json_lines(
    path: Path,
    kind: type[DppmError] = StorageError,
    hint: str = "Restore it from a backup, or move it away.",
) -> list[dict[str, Any]]:
    """Read the complete lines of a file, each a JSON object; none if there is no file.

    A last line that a crash has torn is left out.

    Raises DppmError of ``kind`` if another line is damaged.
    """
    with reading(path, kind, hint):
        try:
            *complete, _torn = read_bytes(path).split(b"\n")
        except FileNotFoundError:
            return []
    found = []
    for number, line in enumerate(complete, 1):
        with reading(f"{path}, line {number},", kind, hint):
            found.append({**parse_json(line)})
    return found


def remove(path: Path) -> None:
    """Remove a file, a folder with its contents, or a link (but not its target)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def there(path: Path) -> bool:
    """Say whether anything has this name, even a broken link.

    Something that cannot be read is damaged, not missing.
    """
    return os.path.lexists(path)
