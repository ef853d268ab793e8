"""Locks on files: one process at a time; the operating system frees them if the process dies.

A lock is on a file, not on its name: the file may be removed or replaced while a process waits for
its lock. So every process that gets a lock checks that the name still refers to that file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotAFile(OSError):
    """Something other than a regular file."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", str(path))


def open_file(path: Path, flags: int, *, follow: bool = False) -> int:
    """Open a regular file and return its handle; a new file is for its owner only.

    ``follow`` allows a symbolic link to one. Raises NotAFile if there is a link, a FIFO (which is
    not waited for), a device or a folder in its place, and OSError if it cannot be opened.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotAFile(path) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotAFile(path)
    return handle


def lock(handle: int, path: Path, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file, and return whether ``path`` still names it.

    Raises BlockingIOError if ``how`` has ``LOCK_NB`` and another process holds it.
    """
    fcntl.flock(handle, how)
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def locked(
    path: Path, flags: int = os.O_RDWR | os.O_CREAT, how: int = fcntl.LOCK_EX
) -> Iterator[int]:
    """Hold the lock of a file for the length of a block, which gets its handle.

    Raises BlockingIOError if ``how`` has ``LOCK_NB`` and another process holds it, and OSError if
    it cannot be opened, or is no regular file.
    """
    while True:
        handle = open_file(path, flags)
        try:
            if lock(handle, path, how):
                yield handle
                return
        finally:
            os.close(handle)
