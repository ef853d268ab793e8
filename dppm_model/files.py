"""Atomic files: a reader sees the old content or the new, never half of one; and locks."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``: temporary file beside it, fsync, rename, fsync of folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and fsync it; a crash can tear at most the last, which is cut off."""
    line = json.dumps(value, allow_nan=False).encode() + b"\n"
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size and (file.seek(size - 1) or file.read(1) != b"\n"):
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> list[Any]:
    """Read all complete lines; a torn last line is left out, a missing file has no lines."""
    if not path.exists():
        return []
    *complete, _torn = path.read_text().split("\n")
    return [json.loads(line) for line in complete]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block; the kernel frees it should the process die.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    with path.open("w") as lock:
        for last in (False, False, True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    raise
                time.sleep(0.1)  # `is_held` holds it for a moment, too
            else:
                break
        yield


def is_held(path: Path) -> bool:
    """Say whether a process holds a lock file."""
    if not path.is_file():
        return False
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
