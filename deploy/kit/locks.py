"""One process at a time in a server's or a site's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dppm_model.errors import InUse
from dppm_model.files import held, is_held

_LOCK = ".running"


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for the length of a block.

    Raises
    ------
    InUse
        If another process does.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / _LOCK))
        except BlockingIOError:
            raise InUse(f"{folder}: a process runs this {what}.", "Stop that one first.") from None
        yield


def is_running(folder: Path) -> bool:
    """Say whether a process holds a folder."""
    return is_held(folder / _LOCK)
