"""The README's pictures, taken from a run's report.

    dppm report runs/demo && python -m tests.browser.readme_pictures runs/demo

Writes ``report.png`` (its head and the chart of epsilon) and ``digits.png`` (the first images of
each class) to tests/benchmarks/results/pictures.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import CHROMIUM, QUIET

TARGET = Path(__file__).parents[1] / "benchmarks" / "results" / "pictures"


def stacked(page: Page, selector: str, crop: int) -> Image.Image:
    """Photograph every element that matches, one below another, without a strip at the left."""
    shots = [
        Image.open(io.BytesIO(element.screenshot())) for element in page.locator(selector).all()
    ]
    width = max(shot.width for shot in shots)
    sheet = Image.new("RGB", (width, sum(shot.height + 2 for shot in shots)), "white")
    top = 0
    for shot in shots:
        sheet.paste(shot, (0, top))
        top += shot.height + 2
    return sheet.crop((crop, 0, width, top))


def main() -> None:
    """Open the report and save both pictures, small enough for a repository."""
    report = Path(sys.argv[1]) / "report.html"
    TARGET.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        for name, selector, crop in (
            ("report", "header, main > .cards, #chart-epsilon", 0),
            ("digits", ".sheet", 60),
        ):
            picture = stacked(page, selector, crop)
            picture.quantize(64).save(TARGET / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
