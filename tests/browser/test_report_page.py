"""`dppm report` as a person meets it: in a browser, by day, by night, on paper, on a phone."""

import json
import shutil
from pathlib import Path

import pytest

from deploy.show import epsilon_text
from tests.browser.conftest import DAY_AND_NIGHT, Watched
from tests.conftest import run

_TOLD: list[Path] = []  # made by the first test that asks


@pytest.fixture
def told(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if _TOLD:
        shutil.rmtree(finished)
        shutil.copytree(_TOLD[0], finished)
        return finished
    assert run("audit", finished, "--canaries", 10, "--images", 10, "--trials", 1000,
               "--members", 100) == 0  # fmt: skip
    assert run("report", finished) == 0
    _TOLD.append(tmp_path_factory.mktemp("told") / "first")
    shutil.copytree(finished, _TOLD[0])
    return finished


def test_it_loads_alone_and_complains_of_nothing(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    assert seen.page.title().startswith("first")
    assert not seen.complaints
    assert [r for r in seen.requests if not r.startswith("data:")] == [
        (told / "report.html").as_uri()
    ]
    pictures = seen.page.locator("img")
    assert pictures.count() >= 3
    sizes = pictures.evaluate_all("all => all.map(i => i.complete && i.naturalWidth)")
    assert all(size > 8 for size in sizes)


def test_its_numbers_are_those_of_the_run(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    privacy = json.loads((told / "privacy.json").read_text())
    result = json.loads((told / "evaluation.json").read_text())

    def figure(name: str) -> str:
        return seen.page.locator(f"#{name}").evaluate("e => e.firstChild.textContent")

    assert figure("epsilon-secure-sum") == epsilon_text(privacy["epsilon_secure_sum"])
    assert figure("epsilon-site") == epsilon_text(privacy["epsilon_site"])
    assert figure("accuracy") == f"{result['accuracy']:.3f}"
    assert figure("sites") == "3"
    rows = seen.page.locator("#chart-epsilon tbody tr")
    rounds = (told / "metrics.jsonl").read_text().splitlines()
    assert rows.count() == len(rounds)
    last = rows.last.locator("th, td").evaluate_all("all => all.map(c => c.textContent)")
    assert last[2:] == [epsilon_text(privacy[f"epsilon_{v}"]) for v in ("secure_sum", "site")]


def test_its_charts_have_marks(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    rounds = len((told / "metrics.jsonl").read_text().splitlines())
    for view in (1, 2):
        marks = seen.page.locator(f"#epsilon-spent-{view} use")
        assert marks.count() == rounds + 1  # and the origin
        heights = marks.evaluate_all("all => all.map(m => m.getBoundingClientRect().y)")
        assert heights == sorted(heights, reverse=True)
        assert heights[0] - heights[-1] > 50  # epsilon grows to be seen
    for name in ("epsilon", "noise", "effort", "accuracy", "classes"):
        box = seen.page.locator(f"#chart-{name} svg").bounding_box()
        assert box is not None
        assert box["width"] > 400
        assert seen.page.locator(f"#chart-{name} svg use").count() >= 2
    ids = seen.page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


@DAY_AND_NIGHT
def test_everybody_can_read_it(told: Path, seen: Watched) -> None:
    for page in ("report.html", "private/report.html"):
        seen.page.goto((told / page).as_uri())
        assert seen.violations() == []
    charts = seen.page.locator("[role=img]")
    texts = charts.evaluate_all("all => all.map(c => c.getAttribute('aria-label'))")
    assert len(texts) == 5
    assert all(len(text) > 40 for text in texts)


def test_it_can_be_read_by_keyboard_alone(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert seen.page.locator(".skip").bounding_box()["x"] >= 0  # it is seen once it is reached
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


def test_it_prints_and_fits_a_phone(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    seen.page.set_viewport_size({"width": 360, "height": 700})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    seen.page.emulate_media(media="print")
    assert not seen.page.locator("nav").is_visible()
    assert seen.page.locator("#chart-epsilon svg").is_visible()
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"


def test_records_stand_on_the_private_page_only(told: Path, seen: Watched) -> None:
    seen.page.goto((told / "report.html").as_uri())
    assert seen.page.get_by_text("REAL RECORDS").count() == 0
    assert seen.page.locator("img[alt*='real record']").count() == 0
    seen.page.goto((told / "private" / "report.html").as_uri())
    assert seen.page.get_by_text("REAL RECORDS", exact=False).count() >= 2
    assert seen.page.locator("img[alt*='real record']").count() == 1
    assert run("report", told, "--public") == 0
    seen.page.goto((told / "report.html").as_uri())
    assert seen.page.locator("#accuracy, #worth, #attacked").count() == 0
