"""Make a folder that is ready once its last file exists; first remove a dead process's files.

While a folder is being made it has a file ``.making``, locked by the process that makes it. If the
lock is free, that process has died, and everything in the folder is its own: it began empty.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from dppm_model.errors import DppmError, RunFolderError
from dppm_model.files import sync
from dppm_model.folders import remove
from dppm_model.locks import locked
from dppm_model.run import Run

_MARK = ".making"


@contextmanager
def making(folder: Path, last: str, *, foreign: DppmError, busy: DppmError) -> Iterator[bool]:
    """Hold a new or empty folder for the length of a block that makes it, file ``last`` last.

    Yields False if the folder is ready and need not be made. If the block fails, nothing is left
    behind. Raises ``foreign`` if the folder holds anything else, which is left as it is; ``busy``
    if another process is making it.
    """
    new = not folder.exists()
    if not new:
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"itself"}
        if names and not names & {_MARK, last} and not (folder / last).exists():
            raise foreign
    if (folder / last).exists() and not (folder / _MARK).exists():
        yield False
        return
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / _MARK
        try:
            stack.enter_context(locked(mark, how=fcntl.LOCK_EX | fcntl.LOCK_NB))
        except (BlockingIOError, FileNotFoundError):  # its maker just failed and removed the folder
            raise busy from None
        if (folder / last).exists():
            mark.unlink()
            yield False
            return
        try:
            _empty(folder)
            yield True
        except BaseException:
            _empty(folder)
            mark.unlink()
            if new:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        mark.unlink()
        sync(folder)


def making_run(run: Run) -> AbstractContextManager[bool]:
    """Hold a run folder while it is made; see `making`. A folder with a plan is ready."""
    folder = run.folder
    return making(
        folder,
        "plan.json",
        foreign=RunFolderError(
            f"{folder} exists and is not a run folder.", "Name a new or empty folder."
        ),
        busy=RunFolderError(f"Another command is preparing {folder}.", "Wait for it, or stop it."),
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _MARK:
            remove(path)
