"""One process at a time in a server's or a site's folder: one that runs it, one that changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dppm_model.errors import InUse
from dppm_model.files import sweep
from dppm_model.locks import held, is_held

_RUNNING, _CHANGING = ".running", ".changing"


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Run a server or a site for the length of a block.

    Raises
    ------
    InUse
        If another process does.
    """
    refused = InUse(f"{folder}: a process runs this {what}.", "Stop that one first.")
    with _held(folder / _RUNNING, refused):
        sweep(folder)
        yield


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Change what is enrolled, announced or approved; it may run meanwhile.

    Raises
    ------
    InUse
        If another command does.
    """
    refused = InUse(f"{folder}: another command changes this folder.", "Wait for it, then again.")
    with _held(folder / _CHANGING, refused):
        sweep(folder)
        yield


@contextmanager
def _held(path: Path, refused: InUse) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(held(path))
        except BlockingIOError:
            raise refused from None
        yield


def is_running(folder: Path) -> bool:
    """Say whether a process holds a folder."""
    return is_held(folder / _RUNNING)
