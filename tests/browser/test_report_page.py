"""`dppm report` in a browser: by day, by night, on paper, on a phone, by keyboard."""

import json
import shutil
from pathlib import Path

import pytest

from deploy.show import epsilon_text
from tests.browser.conftest import DAY_AND_NIGHT, Watched, figure
from tests.conftest import run

_MADE: list[Path] = []  # by the first test that asks


@pytest.fixture
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not _MADE:
        few = ("--canaries", 10, "--images", 10, "--trials", 1000, "--members", 100)
        assert run("audit", finished, *few) == 0
        assert run("report", finished) == 0
        _MADE.append(tmp_path_factory.mktemp("reported") / "first")
        shutil.copytree(finished, _MADE[0])
    shutil.rmtree(finished)
    shutil.copytree(_MADE[0], finished)
    return finished


def test_it_is_one_file_with_the_numbers_of_the_run(reported: Path, seen: Watched) -> None:
    address = (reported / "report.html").as_uri()
    seen.page.goto(address)
    assert seen.page.title().startswith("first")
    assert not seen.complaints
    assert [r for r in seen.requests if not r.startswith("data:")] == [address]
    pictures = seen.page.locator("img")
    assert pictures.count() >= 3
    sizes = pictures.evaluate_all("all => all.map(i => i.complete && i.naturalWidth)")
    assert all(size > 8 for size in sizes)
    privacy = json.loads((reported / "privacy.json").read_text())
    result = json.loads((reported / "evaluation.json").read_text())
    epsilons = [epsilon_text(privacy[f"epsilon_{view}"]) for view in ("secure_sum", "site")]
    assert [figure(seen, f"epsilon-{view}") for view in ("secure-sum", "site")] == epsilons
    assert figure(seen, "accuracy") == f"{result['accuracy']:.3f}"
    assert figure(seen, "sites") == "3"
    rows = seen.page.locator("#chart-epsilon tbody tr")
    assert rows.count() == len((reported / "metrics.jsonl").read_text().splitlines())
    last = rows.last.locator("th, td").evaluate_all("all => all.map(c => c.textContent)")
    assert last[2:] == epsilons


def test_its_charts_have_marks(reported: Path, seen: Watched) -> None:
    seen.page.goto((reported / "report.html").as_uri())
    rounds = len((reported / "metrics.jsonl").read_text().splitlines())
    for view in ("secure_sum", "site"):
        marks = seen.page.locator(f"#epsilon-spent-{view} use")
        assert marks.count() == rounds + 1  # and the origin
        heights = marks.evaluate_all("all => all.map(m => m.getBoundingClientRect().y)")
        assert heights == sorted(heights, reverse=True)
        assert heights[0] - heights[-1] > 50  # epsilon grows visibly
    for name in ("epsilon", "noise", "effort", "accuracy", "classes"):
        box = seen.page.locator(f"#chart-{name} svg").bounding_box()
        assert box is not None
        assert box["width"] > 400
        assert seen.page.locator(f"#chart-{name} svg use").count() >= 2
    ids = seen.page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


@DAY_AND_NIGHT
def test_it_is_accessible(reported: Path, seen: Watched) -> None:
    for page in ("report.html", "private/report.html"):
        seen.page.goto((reported / page).as_uri())
        assert seen.violations() == []
    charts = seen.page.locator("[role=img]")
    texts = charts.evaluate_all("all => all.map(c => c.getAttribute('aria-label'))")
    assert len(texts) == 5
    assert all(len(text) > 40 for text in texts)


def test_it_works_by_keyboard_on_a_phone_and_on_paper(reported: Path, seen: Watched) -> None:
    seen.page.goto((reported / "report.html").as_uri())
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert seen.page.locator(".skip").bounding_box()["x"] >= 0  # visible once focused
    seen.page.keyboard.press("Enter")
    assert seen.page.url.endswith("#main")
    table = seen.page.locator("#chart-epsilon details")
    assert table.get_attribute("open") is None
    for _ in range(30):
        seen.page.keyboard.press("Tab")
        if seen.page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    seen.page.keyboard.press("Enter")
    assert table.get_attribute("open") is not None
    seen.page.set_viewport_size({"width": 360, "height": 700})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    seen.page.emulate_media(media="print")
    assert not seen.page.locator("nav").is_visible()
    assert seen.page.locator("#chart-epsilon svg").is_visible()
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"


def test_records_are_on_the_private_page_only(reported: Path, seen: Watched) -> None:
    seen.page.goto((reported / "report.html").as_uri())
    assert seen.page.get_by_text("REAL RECORDS").count() == 0
    assert seen.page.locator("img[alt*='real record']").count() == 0
    assert seen.page.locator("#accuracy, #evaluation, #audit").count() == 3
    seen.page.goto((reported / "private" / "report.html").as_uri())
    assert seen.page.get_by_text("REAL RECORDS", exact=False).count() >= 2
    assert seen.page.locator("img[alt*='real record']").count() == 1
    assert run("report", reported, "--public") == 0
    seen.page.goto((reported / "report.html").as_uri())
    assert seen.page.locator("#accuracy, #evaluation, #audit").count() == 0
