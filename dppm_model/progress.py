"""Progress of long work."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes what is being done, and the share of it that is done (0 to 1) where that is known."""

    def __call__(self, text: str, share: float | None = None, /) -> None:
        """Show it."""


def silent(_text: str, _share: float | None = None, /) -> None:
    """Show nothing."""


def part(progress: Progress, start: float, size: float, prefix: str = "") -> Progress:
    """Show a part of the work, whose shares are those from ``start`` to ``start + size``."""

    def show(text: str, share: float | None = None, /) -> None:
        progress(prefix + text, None if share is None else start + size * share)

    return show
