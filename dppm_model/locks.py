"""Locks on files: one process at a time, and the kernel frees them should it die.

A lock is on a file, not on its name: the file may have been removed or replaced while its lock was
waited for. So whoever gets one looks whether the name still stands for that file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES, _PAUSE_SECONDS = 3, 0.1


class NotAFile(OSError):
    """Something else in the place of a regular file."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", str(path))


def open_file(path: Path, flags: int, *, follow: bool = False) -> int:
    """Open a regular file, for its owner only should it be made now; return its handle.

    Parameters
    ----------
    follow
        Whether it may be a symbolic link to one.

    Raises
    ------
    NotAFile
        If there is a link, a FIFO (which is not waited for), a device or a folder in its place.
    OSError
        If it cannot be opened.
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
    """Lock an open file; say whether it still is what ``path`` names.

    Raises
    ------
    BlockingIOError
        If ``how`` has ``LOCK_NB`` and another process holds it.
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

    Raises
    ------
    BlockingIOError
        If ``how`` has ``LOCK_NB`` and another process holds it.
    OSError
        If it cannot be opened, or is no regular file.
    """
    while True:
        handle = open_file(path, flags)
        try:
            if lock(handle, path, how):
                yield handle
                return
        finally:
            os.close(handle)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file for the length of a block, or fail at once.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    with contextlib.ExitStack() as stack:
        for left in reversed(range(_TRIES)):
            try:
                stack.enter_context(locked(path, how=fcntl.LOCK_EX | fcntl.LOCK_NB))
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(_PAUSE_SECONDS)  # `is_held` holds it for a moment, too
        yield


@contextmanager
def held_or(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock file as `held` does, or raise ``refusal``."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(path))
        except BlockingIOError:
            raise refusal from None
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
