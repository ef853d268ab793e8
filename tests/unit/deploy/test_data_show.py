"""`dppm data show`: tables for people, JSON for machines, two pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.cli import main


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    for i in range(12):
        folder = tmp_path / "scans" / ("ill" if i % 2 else "[b]well")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (120, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "scans" / "ill" / "notes.txt").write_text("x")
    return tmp_path / "scans"


def test_import_ends_with_the_short_form(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(scans), "--name", "x", "--test-fraction", "0.2"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "x: 130x120 RGB, 8 bits a channel" in said
    assert "0 [b]well 5 1 1 ill 5 1 all 10 2" in said
    assert "held out: 0.2 of each class, by records, seed 0" in said
    assert "warning: No persons are named" in said
    assert "`dppm data show x`" in said


def test_show_writes_both_pictures(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "import", str(scans), "--name", "x"]) == 0
    capsys.readouterr()
    assert main(["data", "show", "x"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "source images: 130x120" in said
    assert "skipped, files .txt: 1" in said and "notes.txt" in said
    assert "exact copies: 0" in said
    assert "Not differentially private" in said
    beside = scans.parent / "store" / "x" / "show"
    with Image.open(beside / "contact_sheet.png") as sheet:
        assert sheet.mode == "RGB" and sheet.width > 5 * 60
    with Image.open(beside / "histograms.png") as chart:
        assert chart.width > 300
    for file in beside.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    assert main(["data", "show", "x"]) == 0  # again, over what is there


def test_json_for_machines(scans: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "import", str(scans), "--name", "x"]) == 0
    capsys.readouterr()
    assert main(["data", "show", "x", "--json", "--out", str(tmp_path / "seen")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differentially_private"] is False
    assert [split["total"] for split in found["splits"]] == [10, 2]
    assert found["intake"]["skipped"][0]["reason"] == "files .txt"
    assert np.array(found["histograms"]).shape == (2, 3, 32)
    assert [Path(path).is_file() for path in found["pictures"]] == [True, True]
    assert not (tmp_path / "store" / "x" / "show").exists()


def test_an_unknown_name_is_refused(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "nothing"]) == 10
    assert "no data set 'nothing'" in capsys.readouterr().err
