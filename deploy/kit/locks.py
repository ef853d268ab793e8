"""One process at a time in a server's or a site's folder: one that runs it, one that changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dppm_model.errors import InUse
from dppm_model.files import sweep
from dppm_model.locks import held_or, is_held

_RUNNING, _CHANGING = ".running", ".changing"


def alone(folder: Path, what: str) -> AbstractContextManager[None]:
    """Run a server or a site for the length of a block.

    Raises
    ------
    InUse
        If another process does.
    """
    refused = InUse(f"{folder}: a process runs this {what}.", "Stop that one first.")
    return _held(folder, _RUNNING, refused)


def changing(folder: Path) -> AbstractContextManager[None]:
    """Change what is enrolled, announced or approved; it may run meanwhile.

    Raises
    ------
    InUse
        If another command does.
    """
    refused = InUse(f"{folder}: another command changes this folder.", "Wait for it, then again.")
    return _held(folder, _CHANGING, refused)


@contextmanager
def _held(folder: Path, name: str, refused: InUse) -> Iterator[None]:
    with held_or(folder / name, refused):
        sweep(folder)
        yield


def is_running(folder: Path) -> bool:
    """Say whether a process holds a folder."""
    return is_held(folder / _RUNNING)
