"""The live page in a browser: while a run trains, after it was killed, and behind a token."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.pages.live_server import live_page
from deploy.pages.live_state import LiveState
from deploy.processes import stop
from deploy.show import epsilon_text
from dppm_model.run import Run
from tests.browser.conftest import DAY_AND_NIGHT, Watched, figure
from tests.conftest import TINY

LONG = [*TINY, "model.phases.means.rounds=400"]


@contextmanager
def dppm(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dppm command that shows a page, and the page's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"https?://\S+/", line):
                yield process, found.group()
                return
        raise AssertionError(f"it ended with {process.wait()} and showed no page")
    finally:
        stop(process)


def round_of(seen: Watched) -> int:
    return int(seen.page.locator("progress").get_attribute("value") or 0)


def wait_for_round(seen: Watched, least: int, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while round_of(seen) < least:
        assert time.monotonic() < deadline, f"round {round_of(seen)} only"
        seen.page.wait_for_timeout(200)


def test_it_follows_a_run_and_reports_its_death(tiny: Path, tmp_path: Path, seen: Watched) -> None:
    folder = tmp_path / "long"
    with dppm("simulate", folder, *LONG, "--watch") as (process, address):
        seen.page.goto(address)
        wait_for_round(seen, 2)
        first, spent = round_of(seen), float(figure(seen, "epsilon-secure-sum"))
        assert "Round" in seen.page.locator("#status").inner_text()
        wait_for_round(seen, first + 1)
        assert float(figure(seen, "epsilon-secure-sum")) > spent
        assert seen.page.locator("#epsilon-spent-secure_sum use").count() == round_of(seen) + 1
        assert figure(seen, "sites") == "3"
        assert not seen.page.locator("#lost").is_visible()
        assert seen.violations() == []
        assert not seen.complaints
        assert all(r.startswith((address, "data:")) for r in seen.requests)
        os.killpg(process.pid, signal.SIGKILL)
        seen.page.locator("#lost").wait_for(state="visible", timeout=30_000)
        assert "Connection lost at" in seen.page.locator("#lost").inner_text()
        assert seen.violations() == []
    # The page of another process sees that no process trains the run now.
    with dppm("watch", folder, "--address", "127.0.0.1:0") as (_, address):
        seen.page.goto(address)
        assert "no process trains this run now" in seen.page.locator("#status").inner_text()
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        for view, key in (("secure-sum", "epsilon_secure_sum"), ("site", "epsilon_site")):
            assert figure(seen, f"epsilon-{view}") == epsilon_text(lines[-1][key])
        assert round_of(seen) == len(lines)


@DAY_AND_NIGHT
def test_a_finished_run_shows_its_numbers_and_images(finished: Path, seen: Watched) -> None:
    privacy = json.loads((finished / "privacy.json").read_text())
    with live_page(LiveState(Run(finished)), "127.0.0.1:0") as address:
        seen.page.goto(address)
        for view, key in (("secure-sum", "epsilon_secure_sum"), ("site", "epsilon_site")):
            assert figure(seen, f"epsilon-{view}") == epsilon_text(privacy[key])
        assert "Finished" in seen.page.locator("#status").inner_text()
        assert seen.page.locator("#samples img").count() == 2  # classes
        assert "single site's data" in seen.page.locator("main").inner_text()
        seen.page.locator("#chart-effort summary").focus()
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_timeout(2500)  # the page asked again meanwhile
        assert seen.page.locator("#chart-effort details").get_attribute("open") is not None
        assert seen.violations() == []
        assert not seen.complaints
        seen.page.set_viewport_size({"width": 360, "height": 700})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
