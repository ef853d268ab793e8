"""What the live page shows: made from the run's folder, again when the folder has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.pages import charts
from deploy.pages.preview import Preview
from deploy.pages.render import Card, render
from deploy.pages.run_summary import RunSummary
from deploy.show import epsilon_text
from dppm_model.errors import DppmError
from dppm_model.run import Run

_LOOK_SECONDS = 10.0  # between two counts of the connected sites
_QUICK = 0.25  # seconds that a look counts for at least


@dataclass
class LiveState:
    """What the page shows of one run; made again only when the run's files have changed.

    Parameters
    ----------
    run
        A run folder with a plan.
    count_online
        Tells how many sites are connected, where somebody knows; it may be slow.
    rest
        After a look the folder is let be for so many times as long as that took, and what was seen
        is told: however many ask, looking takes a fifth of one core. 0 looks each time.
    """

    run: Run
    count_online: Callable[[], int | None] = lambda: None
    rest: float = 4.0
    _one: threading.Lock = field(default_factory=threading.Lock)
    _seen: tuple[Any, ...] = ()
    _counted: float = -_LOOK_SECONDS
    _online: int | None = None
    _next: float = 0.0  # when to look again
    _refusal: DppmError | None = None  # of the last look

    def __post_init__(self) -> None:
        self.facts = RunSummary.of(self.run)
        self._preview = Preview(self.run, self.facts.plan, self.facts.config.class_names)
        self._parts: dict[str, str] = {}

    @property
    def online(self) -> int | None:
        """How many sites are connected, as of the last count."""
        return self._online

    def refresh(self) -> None:
        """Read the run folder again, if anything in it has changed."""
        if time.monotonic() - self._counted >= _LOOK_SECONDS:
            self._online, self._counted = self.count_online(), time.monotonic()
        seen = (*(_stamp(p) for p in self._files()), self.run.in_work, self._online)
        if seen != self._seen:
            self.facts = RunSummary.of(self.run)
            self._parts = self._made()
            self._seen = seen

    def _files(self) -> tuple[Path, ...]:
        run = self.run
        return (run.metrics, run.status, run.checkpoint, run.snapshot, run.model)

    def parts(self) -> dict[str, str]:
        """Return the page's parts as HTML, by the ids of their places.

        Raises
        ------
        DppmError
            If a file of the run is damaged.
        """
        with self._one:
            if (begun := time.monotonic()) >= self._next:
                self._refusal = None
                try:
                    self.refresh()
                except DppmError as error:
                    self._refusal = error
                now = time.monotonic()
                self._next = now + self.rest * max(now - begun, _QUICK)
            if self._refusal is not None:
                raise self._refusal
            return self._parts

    def _made(self) -> dict[str, str]:
        drawn = {c.name: c for c in charts.run_charts(self.facts)}
        made = {
            "status": render("live_parts.html", part="status", **self._status()),
            "figures": render("live_parts.html", part="figures", list=self._cards()),
        }
        for name in ("epsilon", "noise", "effort"):
            chart = drawn.get(name)
            made[name] = (chart and render("live_parts.html", part=name, drawn=chart)) or ""
        made["samples"] = render(
            "live_parts.html",
            part="samples",
            sheets=self._preview.sheets(),
            samples_text="Eight of each class, drawn by Heun's method in twelve steps from the "
            "model after the last finished phase; nothing was selected, and they cost no privacy.",
        )
        return made

    def _status(self) -> dict[str, Any]:
        f = self.facts
        done, total = len(f.rounds), f.plan.rounds
        says = {
            "not begun": "Not begun.",
            "running": f"Round {min(done + 1, total)} of {total} "
            f"({f.phase_of_round[min(done, total - 1)]}): {f.stage}.",
            "stopped": f"Stopped after round {done} of {total}: nobody trains this run now. The "
            "same command goes on from here; nothing is spent twice.",
            "failed": f"Stopped by an error after round {done} of {total}.",
            "finished": f"Finished: {done} rounds in {f.seconds / 60:.1f} minutes.",
        }
        return {"headline": says[f.state], "done": done, "rounds": total, "error": f.error}

    def _cards(self) -> list[Card]:
        f = self.facts
        cards = []
        for view, name, spent, planned in zip(
            ("secure-sum", "site"),
            ("ε spent, for whoever sees the sum", "ε spent, for whoever sees a site's reports"),
            f.spent,
            f.planned[-1][1:],
            strict=True,
        ):
            left = epsilon_text(max(0.0, planned - spent))
            note = f"of {epsilon_text(planned)} planned, {left} left; δ = {f.plan.delta:g}"
            cards.append(Card(f"epsilon-{view}", name, epsilon_text(spent), note))
        last = f.rounds[-1] if f.rounds else None
        alive = "not known" if self.online is None else str(self.online)
        if f.simulated:
            alive = str(f.plan.sites)
        took = "none so far" if last is None else f"{last['sites']} in the last sum"
        return [
            *cards,
            Card(
                "sites",
                f"sites connected, of {f.plan.sites}",
                alive,
                f"{took}; {f.plan.min_survivors} at least; {f.missing} reports missing so far",
            ),
            Card(
                "seconds",
                "the last round took",
                "–" if last is None else f"{last['seconds']:.1f} s",
                f"{f.seconds / 60:.1f} min in all",
            ),
        ]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
