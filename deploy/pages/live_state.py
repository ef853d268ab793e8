"""The content of the live page: made from the run's folder whenever that has changed."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.pages.charts import run_charts
from deploy.pages.pictures import Preview
from deploy.pages.prometheus import exposition
from deploy.pages.render import TEMPLATES, render
from deploy.pages.run_summary import RunSummary
from dppm_model.errors import DppmError
from dppm_model.run import Run

_COUNT_SECONDS = 10.0  # between two counts of the connected sites
_SHORTEST_READ = 0.25  # seconds that a read counts for at least


@dataclass
class LiveState:
    """The content of the live page for one run.

    Parameters
    ----------
    run
        A run folder with a plan.
    count_online
        Returns the number of connected sites, or None if it is not known; may be slow.
    rest
        Time between two reads of the folder, in multiples of the time that a read takes; until then
        the last content is served. So reading takes a fifth of a core, no matter how many clients
        ask. 0 reads at every request.
    """

    run: Run
    count_online: Callable[[], int | None] = lambda: None
    rest: float = 4.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _preview: Preview = field(default_factory=Preview)
    _content: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    _seen: tuple[Any, ...] = ()
    _online: int | None = None
    _counted: float = -_COUNT_SECONDS
    _next: float = 0.0  # time of the next read
    _refusal: DppmError | None = None  # of the last read

    def __post_init__(self) -> None:
        RunSummary.of(self.run)  # refuse a folder that is not a run, at once

    def content(self) -> Mapping[str, tuple[str, bytes]]:
        """Return media type and content by path; `DppmError` if a file of the run is damaged."""
        with self._lock:
            if (begun := time.monotonic()) >= self._next:
                self._refusal = None
                try:
                    self.refresh()
                except DppmError as error:
                    self._refusal = error
                now = time.monotonic()
                self._next = now + self.rest * max(now - begun, _SHORTEST_READ)
            if self._refusal is not None:
                raise self._refusal
            return self._content

    def refresh(self) -> None:
        """Make new content if anything in the run's folder has changed."""
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._online, self._counted = self.count_online(), time.monotonic()
        run = self.run
        files = (run.metrics, run.status, run.checkpoint, run.snapshot, run.model)
        seen = (*map(_stamp, files), run.in_work, self._online)
        if seen != self._seen:
            self._content = self._made(RunSummary.of(run))
            self._seen = seen

    def _made(self, summary: RunSummary) -> dict[str, tuple[str, bytes]]:
        page = render(
            "live.html",
            summary=summary,
            online=self._online,
            charts=run_charts(summary),
            sheets=self._preview.sheets(summary),
        ).encode()
        state = summary.to_json() | {"sites_online": self._online}
        polled = state | {"page": hashlib.sha256(page).hexdigest()}
        return {
            "/": ("text/html", page),
            "/live.js": ("text/javascript", (TEMPLATES / "live.js").read_bytes()),
            "/state.json": ("application/json", json.dumps(polled).encode()),
            "/metrics": ("text/plain", exposition(summary.run.folder.name, state)),
        }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
