"""A folder that takes another's place, whole: made beside it, then renamed.

It is made in ``.NAME.new``, which has this name whoever makes it and is emptied by the next: it may
hold people's records, and a process that was killed cannot remove them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dppm_model.files import remove, sync
from dppm_model.locks import lock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the place where a folder is to be made; ``path`` becomes it when the block ends.

    If the block fails, ``path`` stays as it is. Another process that wants to replace it waits.

    Yields
    ------
    A path that does not exist, in a folder that is the block's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{path.name}.new"
    old, made = work / "old", work / "made"
    with _own(work):
        if old.exists() and not path.exists():  # killed between the two renames
            old.rename(path)
        try:
            for left in work.iterdir():
                remove(left)
            yield made
            if path.exists():
                path.rename(old)
            made.rename(path)
            sync(path.parent)
        finally:
            if path.exists() or not old.exists():  # or all that is left is in there
                shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Make a folder, or take over a dead process's, and hold its lock."""
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its owner before us is done, and has removed it
        try:
            if lock(handle, folder):
                yield
                return
        finally:
            os.close(handle)
