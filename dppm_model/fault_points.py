"""The numbered points of a round at which tests kill a process.

At every point the files on disk allow a restart to finish the same round: nothing is spent twice,
no question gets two different answers, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class FaultPoint(Enum):
    """Points in the order of a round; the first word names the process that reaches them.

    `SERVER_BLAMED`, `SERVER_JUDGED` and `SITE_REMOVED` occur in rounds that a site spoils,
    `SERVER_RELEASED` in rounds whose noise is the server's.
    """

    SERVER_DEBITED = 1
    SITE_PREPARED = 2
    SERVER_BEGUN = 3
    SITE_ADMITTED = 4
    SITE_DEBITED = 5
    SITE_ANSWERED = 6
    SITE_STORED = 7
    SITE_MASKED = 8
    SERVER_BLAMED = 9
    SERVER_SUMMED = 10
    SERVER_CLOSED = 11
    SITE_REVEALED = 12
    SERVER_JUDGED = 13
    SITE_REMOVED = 14
    SERVER_OPENED = 15
    SERVER_RELEASED = 16
    SERVER_LEARNED = 17
    SERVER_SAVED = 18


_watchers: list[Callable[[FaultPoint], None]] = []


def reached(point: FaultPoint) -> None:
    """Announce that a point is reached; only tests listen."""
    for watcher in _watchers:
        watcher(point)


@contextmanager
def watched(watcher: Callable[[FaultPoint], None]) -> Iterator[None]:
    """Call ``watcher`` at every point that this process reaches; it may raise."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
