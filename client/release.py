"""Constant-time release, so that response times do not reveal the number of records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def constant_time_release(seconds: float) -> Iterator[None]:
    """Return ``seconds`` after the start, or at a multiple if the work takes longer; 0: no delay.

    The same holds if the work fails. Choose more than any round takes: a multiple reveals that the
    work took longer.
    """
    begun = time.monotonic()
    try:
        yield
    finally:
        if seconds:
            time.sleep(-(time.monotonic() - begun) % seconds)
