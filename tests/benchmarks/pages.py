"""Sizes and load times of the report and of the live page, in a headless Chromium.

    python -m tests.benchmarks.pages RUN

Beside each: an empty page in the same browser, and the time `dppm report` takes to write.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from deploy.pages.live_server import live_page
from deploy.pages.live_state import LiveState
from deploy.pages.report import write_reports
from dppm_model.run import Run
from tests.benchmarks.record import record
from tests.browser.conftest import CHROMIUM, QUIET

LOADS = 9
_TIMES = "performance.getEntriesByType('navigation')[0]"


def loaded(page: Page, address: str) -> dict[str, float]:
    """Median milliseconds until a page is loaded and drawn, and what it weighs."""
    times, painted = [], []
    for _ in range(LOADS):
        page.goto(address)
        times.append(page.evaluate(f"{_TIMES}.loadEventEnd"))
        painted.append(
            page.evaluate(
                "new Promise(done => requestAnimationFrame(() => done(performance.now())))"
            )
        )
    return {
        "load_ms": statistics.median(times),
        "painted_ms": statistics.median(painted),
        "bytes": len(page.content().encode()),
        "elements": page.evaluate("document.querySelectorAll('*').length"),
    }


def main() -> None:
    """Write the report anew, load all pages, print, record."""
    run = Run(Path(sys.argv[1]))
    begun = time.perf_counter()
    report, *_ = write_reports(run, public=False)
    figures = {"report": {"write_seconds": time.perf_counter() - begun}}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = Path(folder) / "empty.html"
        empty.write_text("<!doctype html><title>empty</title>")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        figures["empty"] = loaded(page, empty.as_uri())
        figures["report"] |= loaded(page, report.resolve().as_uri())
        with live_page(LiveState(run), "127.0.0.1:0") as address:
            figures["live"] = loaded(page, address)
        browser.close()
    for name, found in figures.items():
        ratio = found["load_ms"] / figures["empty"]["load_ms"]
        print(f"{name:6s} {ratio:5.1f} times the empty page; {found}")
    record("pages", figures)


if __name__ == "__main__":
    main()
