"""Constant-time release: when a report leaves must not tell how many records it was made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def constant_time_release(seconds: float) -> Iterator[None]:
    """Leave after ``seconds``, or after a multiple of them if the work takes longer; 0: at once.

    Also when the work fails. Choose more than any round takes: a multiple says that one was passed.
    """
    begun = time.monotonic()
    try:
        yield
    finally:
        if seconds:
            time.sleep(-(time.monotonic() - begun) % seconds)
