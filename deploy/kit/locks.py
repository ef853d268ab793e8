"""Locks of a server's or a site's folder: one process may run it, and one may change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dppm_model.errors import InUse
from dppm_model.files import sweep
from dppm_model.folders import held, is_held

_RUNNING = ".running"


def alone(folder: Path, what: str) -> AbstractContextManager[None]:
    """Hold the lock for running a server or a site; `InUse` if another process does."""
    refused = InUse(f"{folder}: another process runs this {what}.", "Stop that process first.")
    return _held(folder / _RUNNING, refused)


def changing(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock for enrolling, announcing or approving; `InUse` if another command does.

    The folder's server or site may run meanwhile.
    """
    refused = InUse(
        f"{folder}: another command is changing this folder.", "Wait for it, then try again."
    )
    return _held(folder / ".changing", refused)


@contextmanager
def _held(path: Path, refused: InUse) -> Iterator[None]:
    with held(path, refused):
        sweep(path.parent)
        yield


def is_running(folder: Path) -> bool:
    """Return whether a process runs the folder's server or site."""
    return is_held(folder / _RUNNING)
