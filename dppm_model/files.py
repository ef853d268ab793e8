"""Atomic files: a reader sees the old content or the new, never half of one; and lines of JSON.

A file is written under one name, ``.NAME.new``, beside its place, and then renamed. Its writer
holds its lock, so a second writer of the same file waits, and `sweep` knows what a dead one left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dppm_model.locks import NotAFile, lock, locked, open_file

_NEW = ".new"
_CHUNK = 1 << 16


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``content``, readable by its owner only.

    ``durable`` writes survive a failing machine: fsync of the file before the rename, and of its
    folder after. Leave it out for content that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(path.parent, f".{path.name}{_NEW}")
    with _own(temporary) as handle:
        try:
            os.fchmod(handle, 0o600)
            os.ftruncate(handle, 0)
            write_all(handle, content)
            if durable:
                os.fsync(handle)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if durable:
        sync(path.parent)


@contextmanager
def _own(path: Path) -> Iterator[int]:
    """Open and lock a new temporary file, after removing anything planted in its place."""
    while True:
        try:
            handle = open_file(path, os.O_RDWR | os.O_CREAT)
        except NotAFile:
            path.unlink(missing_ok=True)
            continue
        try:
            if not lock(handle, path):
                continue  # its previous writer has renamed it
            found = os.fstat(handle)
            if (found.st_nlink, found.st_uid) != (1, os.geteuid()):
                path.unlink(missing_ok=True)
                continue
            yield handle
            return
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the temporary files of dead writers, in a folder and below.

    They may hold secrets that have been deleted elsewhere. Files of living writers stay, so this is
    safe at any time; the folder's owner calls it before its work.
    """
    for place, _, names in os.walk(folder, onerror=_unless_gone):
        for name in names:
            if name.startswith(".") and name.endswith(_NEW):
                _remove_dead(Path(place, name))


def _remove_dead(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            handle = open_file(path, os.O_RDONLY)
        except NotAFile:
            path.unlink()
            return
        try:
            if lock(handle, path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                path.unlink()
        except BlockingIOError:
            pass  # it is being written
        finally:
            os.close(handle)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def write_all(handle: int, content: bytes) -> None:
    """Write all bytes; a single ``os.write`` may write only some.

    Raises OSError if that fails; some bytes may have been written.
    """
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


def sync(path: Path) -> None:
    """Make a file durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def append_line(handle: int, line: bytes) -> None:
    """Append a line to an open file of lines, durably, or leave the file unchanged.

    The torn last line of a crash is cut off first: only a line feed completes a line.

    Raises OSError if the line cannot be written durably; it is then taken back.
    """
    size = _end_of_lines(handle)
    try:
        os.ftruncate(handle, size)
        os.lseek(handle, size, os.SEEK_SET)
        write_all(handle, line + b"\n")
        os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _end_of_lines(handle: int) -> int:
    """Return how many bytes of a file are complete lines."""
    end = os.fstat(handle).st_size
    while end:
        begin = max(0, end - _CHUNK)
        found = os.pread(handle, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def append_json_line(path: Path, value: Any) -> None:
    """Append one JSON line and fsync it; see `append_line`."""
    with locked(path) as handle:
        append_line(handle, json.dumps(value, allow_nan=False).encode())
