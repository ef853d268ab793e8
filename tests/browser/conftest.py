"""A headless Chromium that records a page's complaints, and keeps a picture of each test.

Pictures go to tests/browser/pictures (ignored by git), or to where DPPM_PICTURES points.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
# Without the last ones Chromium calls home at every start.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = Path(os.environ.get("DPPM_PICTURES", Path(__file__).parent / "pictures"))
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium here: make browser"))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Watched:
    """A page, and all that it logged or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda r: self.requests.append(r.url))

    def violations(self) -> list[str]:
        """Return the faults that axe finds, by WCAG 2.1 AA and good practice."""
        found = Axe().run(self.page)
        return [
            f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}"
            for v in found.response["violations"]
        ]


def figure(seen: Watched, name: str) -> str:
    """The figure of a card, without its note."""
    return str(seen.page.locator(f"#{name}").evaluate("e => e.firstChild.textContent"))


DAY_AND_NIGHT = pytest.mark.parametrize("seen", ["light", "dark"], indirect=True)


@pytest.fixture
def seen(request: pytest.FixtureRequest, chromium: Browser, tmp_path: Path) -> Iterator[Watched]:
    """A fresh page, by day unless parametrised; its picture is kept."""
    context = chromium.new_context(
        color_scheme=getattr(request, "param", "light"),
        viewport={"width": 1100, "height": 900},
        ignore_https_errors=True,
    )
    watched = Watched(context.new_page())
    yield watched
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = request.node.name.replace("[", "-").strip("]")
    watched.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    context.close()
