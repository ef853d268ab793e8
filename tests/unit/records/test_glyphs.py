"""The data set made from fonts: the same each time, split by family, whole or not there at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import DataError, DownloadError
from dppm_model.records import sources
from dppm_model.records.glyphs import build as building
from dppm_model.records.glyphs import rules, store
from dppm_model.records.glyphs.build import Painter
from dppm_model.records.shards import Records, open_records
from dppm_model.records.writing import write_records
from tests.support.fonts import EM, LETTERS, boxes, write_families, write_font


@pytest.fixture(scope="module", autouse=True)
def fewer_features() -> Iterator[None]:
    """Enough for block letters, and seconds faster each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_FEATURES", 200)
        yield


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_families(tmp_path_factory.mktemp("fonts"))


@pytest.fixture
def more(fonts: Path, tmp_path: Path) -> Path:
    """A copy of the fonts for tests to add to, elsewhere: no name above it may matter."""
    return Path(shutil.copytree(fonts, tmp_path / "allrunes" / "deeper"))


@pytest.fixture(scope="module")
def digests(fonts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Digests of both data sets made from the toy fonts."""
    made = tmp_path_factory.mktemp("made")
    return {name: manifests(build(fonts, made / name, name)) for name in store.SETS}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DPPM_DATA_SOURCE", raising=False)
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def build(fonts: Path, target: Path, name: str = "glyphs") -> Path:
    building.build(fonts, target, name, store.SETS[name], lambda _text, _share: None)
    return target


def manifests(target: Path) -> dict[str, str]:
    return {split: open_records(target / split).manifest.digest for split in store.SPLITS}


def opened(target: Path) -> dict[str, Records]:
    return {split: open_records(target / split) for split in store.SPLITS}


def empty(root: Path) -> bool:
    return not root.exists() or not list(root.iterdir())


def test_the_same_fonts_elsewhere_give_the_same_content(more: Path, tmp_path, digests) -> None:
    assert manifests(build(more, tmp_path / "again")) == digests["glyphs"]
    write_font(more / "type" / "f0" / "0.ttf", weight=0.5)
    assert manifests(build(more, tmp_path / "other")) != digests["glyphs"]


def test_every_record_is_the_letter_that_its_label_names(fonts: Path, tmp_path: Path) -> None:
    splits = opened(build(fonts, tmp_path / "made"))
    test_family = {int(person) for person in splits["test"].persons}
    assert len(test_family) == 1  # of five alike, one is more than 12 %
    with Painter() as painter:
        for split, records in splits.items():
            assert records.manifest.classes == tuple(LETTERS)
            families = [f for f in range(5) if (f in test_family) == (split == "test")]
            drawn = [
                (painter.pictures(fonts / "type" / f"f{f}" / f"{member}.ttf", LETTERS), f)
                for f in families
                for member in range(4)
            ]
            np.testing.assert_array_equal(records.images, np.concatenate([d for d, _ in drawn]))
            assert records.labels.tolist() == list(range(26)) * len(drawn)
            assert records.persons.tolist() == [f for _, f in drawn for _ in LETTERS]


def test_fonts_of_no_use_change_nothing(more: Path, tmp_path: Path, digests) -> None:
    def without_q(letter: str, weight: float) -> list:
        return [] if letter == "Q" else boxes(letter, weight)

    def tofu(_letter: str, weight: float) -> list:
        return boxes("B", weight)

    def half_tofu(letter: str, weight: float) -> list:  # of which 12 letters are legible
        return boxes(min(letter, "M"), weight)

    def absurd(letter: str, weight: float) -> list:
        return [(0, 0, 9 * EM, 60)] if letter == "Q" else boxes(letter, weight)

    def symbols(letter: str, weight: float) -> list:
        return boxes(LETTERS[(LETTERS.index(letter) + 7) % 26], weight)

    write_font(more / "x" / "blank.ttf", draw=without_q)
    write_font(more / "x" / "absurd.ttf", draw=absurd)
    write_font(more / "x" / "tofu.otf", draw=tofu)
    write_font(more / "x" / "half.ttf", draw=half_tofu, weight=0.3)
    write_font(more / "x" / "symbols.ttf", draw=symbols, weight=0.45)
    write_font(more / "allrunes" / "deep" / "good.ttf", weight=0.45)
    write_font(more / "ipaex-type1" / "good.otf", weight=0.45)
    write_font(more / "x" / "good.ttf", weight=0.45).rename(more / "x" / "good.woff")
    good = (more / "type" / "f0" / "0.ttf").read_bytes()
    (more / "x" / "cut.ttf").write_bytes(good[:800])
    (more / "x" / "broken.PFB").write_text("%!PS-AdobeFont")
    (more / "x" / "folder.otf").mkdir()
    (more / "x" / "dangling.otf").symlink_to(more / "nowhere.otf")
    assert manifests(build(more, tmp_path / "made")) == digests["glyphs"]
    write_font(more / "x" / "GOOD.TTF", weight=0.45)
    assert manifests(build(more, tmp_path / "other")) != digests["glyphs"]


def test_copies_are_dropped_and_join_families(more: Path, tmp_path: Path) -> None:
    before = opened(build(more, tmp_path / "before"))
    for member in range(2):  # by order an .otf comes first, whatever its path
        write_font(more / "zz" / f"{member}.otf", weight=0.02 + 0.08 * member, slant=0.12 * 4 - 0.3)
    after = opened(build(more, tmp_path / "after"))
    assert sum(map(len, after.values())) == sum(map(len, before.values())) == 20 * 26
    persons = np.concatenate([records.persons for records in after.values()])
    assert np.bincount(persons).tolist() == [104] * 5
    joined = next(records for records in after.values() if 4 in records.persons)
    assert joined.persons[:52].tolist() == [4] * 52


def test_glyphs_aj_is_glyphs_restricted(fonts: Path, tmp_path: Path) -> None:
    whole = opened(build(fonts, tmp_path / "glyphs"))
    part = opened(build(fonts, tmp_path / "glyphs-aj", "glyphs-aj"))
    for split in store.SPLITS:
        chosen = whole[split].select(np.flatnonzero(whole[split].labels < 10))
        assert part[split].manifest.classes == tuple("ABCDEFGHIJ")
        np.testing.assert_array_equal(part[split].images, chosen.images)
        np.testing.assert_array_equal(part[split].labels, chosen.labels)
        np.testing.assert_array_equal(part[split].persons, chosen.persons)


def test_fetch_is_idempotent_and_mends_what_was_damaged_but_no_imported_records(
    root: Path, fonts: Path, monkeypatch, digests
) -> None:
    monkeypatch.setenv("DPPM_DATA_SOURCE", str(root.parent / "own"))
    shutil.copytree(fonts, root.parent / "own" / "glyphs")
    sources.fetch("glyphs")
    with (root / "glyphs" / "test" / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    sources.fetch("glyphs")
    assert manifests(root / "glyphs") == digests["glyphs"]
    shutil.rmtree(root.parent / "own")
    sources.fetch("glyphs")  # there is no source any more, so none may be needed
    assert [p.name for p in root.iterdir()] == ["glyphs"]
    images, labels = np.zeros((12, 1, 8, 8), np.uint8), np.zeros(12, int)
    for split in store.SPLITS:
        write_records(root / "glyphs" / split, images, labels, name="x", split=split, classes="a")
    with pytest.raises(DataError, match="holds other records"):
        sources.fetch("glyphs", source=fonts)
    assert len(open_records(root / "glyphs" / "test")) == 12


def one_folder(folder: Path) -> None:
    for i in range(24):
        write_font(folder / "f" / f"{i}.ttf", weight=0.02 * i)


def one_family(folder: Path) -> None:
    for i in range(24):
        write_font(folder / f"f{i % 3}" / f"{i}.ttf", weight=0.001 * i)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (lambda folder: None, "has no fonts"),
        (lambda folder: folder.rmdir(), "has no fonts"),
        (lambda folder: (folder / "a.pfb").write_text("x"), "has 0 fonts that draw"),
        (lambda folder: write_families(folder, 6, 3), "has 18 fonts that draw"),
        (one_folder, "one folder only"),
        (one_family, "24 fonts make 1 families"),
    ],
)
def test_fonts_that_make_no_data_set_are_refused(root: Path, tmp_path, fill, reason) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    fill(folder)
    with pytest.raises(DataError, match=reason) as refusal:
        sources.fetch("glyphs", source=folder)
    assert str(folder) in refusal.value.message
    assert refusal.value.hint
    assert empty(root)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, more: Path) -> list[str]:
    """Debian's package with the toy fonts in it, and how often it was asked for."""
    asked = []

    def unpack(package: str, work: Path) -> Path:
        asked.append(package)
        return Path(shutil.copytree(more, work / "x"))

    monkeypatch.setattr(store.routes, "unpack_apt", unpack)
    return asked


def test_the_package_gives_the_pinned_content(root: Path, package, monkeypatch, digests) -> None:
    monkeypatch.setattr(store, "DIGESTS", digests)
    monkeypatch.setenv("DPPM_DATA_SOURCE", str(root.parent))  # which holds no folder glyphs
    said = []
    sources.fetch("glyphs", progress=lambda *what: said.append(what))
    assert package == ["texlive-fonts-extra=2022.20230122-4"]
    assert manifests(root / "glyphs") == digests["glyphs"]
    assert said[-1] == ("glyphs: done", 1.0)
    sources.fetch("glyphs-aj")
    assert len(package) == 2
    assert manifests(root / "glyphs-aj") == digests["glyphs-aj"]


def test_a_package_that_is_not_the_pinned_one_is_refused(root: Path, package) -> None:
    with pytest.raises(DownloadError, match="train split differs from the pinned one") as refusal:
        sources.fetch("glyphs")
    assert "FreeType" in refusal.value.message
    assert "DPPM_DATA_SOURCE" in refusal.value.hint
    assert empty(root)
