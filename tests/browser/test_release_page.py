"""The page of `dppm release` in a browser: by day, by night, on paper."""

from pathlib import Path

import pytest

from tests.browser.conftest import DAY_AND_NIGHT, Watched, figure
from tests.conftest import run

_LAX = (
    "units: [person]\nmin_audit_canaries: 10\nmax_nearer_than_real: 1\nmax_membership_area: 1\n"
    "max_membership_found: 1\noverride_keys: {officer: %s}\n"
)


@pytest.fixture
def released(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    few = ("--canaries", 10, "--images", 10, "--trials", 1000, "--members", 100)
    assert run("audit", finished, *few) == 0
    key, policy, out = (tmp_path / name for name in ("officer.key", "policy.yaml", "o.json"))
    capsys.readouterr()
    assert run("override", "key", key) == 0
    policy.write_text(_LAX % capsys.readouterr().out.split(": ")[2].strip(" }\n"))
    shared = ("--policy", policy)
    sign = ("override", "sign", finished, *shared, "--key", key, "--out", out)
    assert run(*sign, "--waive", "units=no person has two") == 0
    assert run("release", finished, *shared, "--override", out) == 0
    return finished / "release.html"


@DAY_AND_NIGHT
def test_it_is_one_accessible_page_that_can_be_signed(released: Path, seen: Watched) -> None:
    seen.page.goto(released.as_uri())
    assert not seen.complaints
    assert [r for r in seen.requests if not r.startswith("data:")] == [released.as_uri()]
    assert seen.violations() == []
    assert figure(seen, "unit") == "one record"
    rows = seen.page.locator("h2#figures ~ .wide").first.locator("tbody tr")
    assert rows.count() == 13
    assert seen.page.get_by_text("NOT MET, waived").count() == 1
    assert seen.page.get_by_text("no person has two").is_visible()
    seen.page.emulate_media(media="print")
    lines = seen.page.locator(".blank")
    assert lines.count() == 4 + 3 * 3
    boxes = [box for box in (lines.nth(i).bounding_box() for i in range(13)) if box]
    assert all(box["width"] > 150 and box["height"] > 30 for box in boxes)  # room for a pen
    assert len(boxes) == 13
    seen.page.set_viewport_size({"width": 360, "height": 700})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
