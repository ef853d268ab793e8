"""What `dppm data show` says of a data set is what the data set holds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.description import describe, examine
from dppm_model.records.importers import import_dataset
from dppm_model.records.intake import Intake
from dppm_model.records.listing import Choices
from tests.support.mutations import twin


def scene(number: int) -> Image.Image:
    """A picture that looks like no other one."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve pictures of four persons and two classes, with a copy on each side of the split."""
    rows = ["file,label,person,split"]
    for i in range(12):
        scene(0 if i in (4, 11) else i).save(tmp_path / f"{i}.png")
        rows.append(
            f"{i}.png,{'ill' if i % 2 else 'well'},p{i // 3},{'test' if i > 8 else 'train'}"
        )
    Image.new("L", (12, 12), 255).save(tmp_path / "2.png")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows))
    return path


def test_counts_persons_and_the_rule_of_the_split(table: Path, tmp_path: Path) -> None:
    import_dataset(table, "x", root=tmp_path / "store")
    found = describe("x", tmp_path / "store")
    assert (found.shape, found.depth, found.classes) == ((1, 12, 12), 8, ("ill", "well"))
    train, test = found.splits
    assert (train.split, train.total, train.records) == ("train", 9, (4, 5))
    assert (train.total_persons, train.persons, train.records_per_person) == (3, (3, 3), (3, 3, 3))
    assert (test.total, test.records, test.total_persons) == (3, (2, 1), 1)
    assert found.intake is not None
    assert found.intake.hold_out == "the source's own split"
    assert found.intake.smallest == found.intake.largest == (12, 12)
    assert any("exact copies" in note for note in found.intake.notes)
    said = " ".join(found.warnings)
    assert "Fewer than 50 training records: ill (4), well (5)" in said
    assert "One person has 3 of 9 training records" in said
    assert "No persons" not in said


@twin(
    "only copies within a split are counted",
    "dppm_model.records.description:exact_copies",
    lambda whole: lambda digests: [pair for pair in whole(digests) if pair[0] < 9],
)
def test_copies_within_and_across_the_splits(table: Path, tmp_path: Path) -> None:
    import_dataset(table, "x", root=tmp_path / "store")
    found = examine("x", tmp_path / "store")
    assert found.copies == (("train 4", "train 0"), ("test 2", "train 0"))
    assert (found.across, found.contradicting, found.constant) == (1, 1, 1)
    assert found.alike == ()
    assert "1 of them have one side in training, the other in test." in found.warnings


def test_near_copies_are_another_persons_only(tmp_path: Path) -> None:
    rows = ["file,label,person"]
    for i, who in enumerate("aabcd"):
        picture = np.asarray(scene(min(i, 2) // 2 if i < 3 else i)).copy()
        picture[0, 0] ^= i
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,x,{who}")
    Image.open(tmp_path / "0.png").point(lambda v: v // 2).save(tmp_path / "2.png")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    import_dataset(tmp_path / "list.csv", "x", root=tmp_path / "store", test_fraction=0)
    assert examine("x", tmp_path / "store").alike == (("train 2", "train 0"),)


def test_histograms_are_of_training_images_by_class_and_channel(tmp_path: Path) -> None:
    for name, colour in (("dark", (0, 8, 16)), ("bright", (255, 0, 255))):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(2):
            picture = Image.new("RGB", (12, 12), colour)
            picture.putpixel((i, 0), (128, 128, 128))
            picture.save(tmp_path / "scans" / name / f"{i}.png")
    import_dataset(tmp_path / "scans", "x", root=tmp_path / "store", test_fraction=0.5)
    bright, dark = examine("x", tmp_path / "store").histograms
    most = 143 / 144
    assert [int(row.argmax()) for row in dark] == [0, 1, 2]
    assert [int(row.argmax()) for row in bright] == [31, 0, 31]
    np.testing.assert_allclose([*dark.max(axis=1), *bright.max(axis=1)], most)
    np.testing.assert_allclose(dark[:, 16], 1 - most)


def test_what_was_passed_over_is_kept_with_its_reason(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    (source / "ill" / ".thumbnails").mkdir(parents=True)
    (source / "ill" / "notes.txt").write_text("x")
    (source / "list.csv").write_text("x")
    for i in range(30):
        (source / "ill" / f".{i}.png").write_text("x")
    scene(1).save(source / "ill" / "1.png")
    scene(1).save(source / "ill" / "2.png")
    scene(2).save(source / "ill" / "3\udcff.png")
    import_dataset(
        source, "x", root=tmp_path / "store", choices=Choices(drop_duplicates=True), test_fraction=0
    )
    kept = Intake.read(tmp_path / "store" / "x")
    assert kept is not None
    found = {one.reason: (one.count, one.names) for one in kept.skipped}
    assert {reason: count for reason, (count, _) in found.items()} == {
        "exact copies": 1,
        "files .txt": 1,
        "files beside the class folders": 1,
        "hidden files": 30,
        "hidden folders": 1,
    }
    assert found["files .txt"][1] == (str(source / "ill" / "notes.txt"),)
    assert len(found["hidden files"][1]) == 20
    assert found["exact copies"][1] == (f"{source}/ill/2.png, of {source}/ill/1.png",)
    assert kept.hold_out == "none"


def test_a_set_without_an_account_is_described_too(tmp_path: Path, table: Path) -> None:
    path = import_dataset(table, "x", root=tmp_path / "store")
    (path / "import.json").unlink()
    assert describe("x", tmp_path / "store").intake is None


def test_damage_and_unknown_names_are_refused(tmp_path: Path, table: Path) -> None:
    path = import_dataset(table, "x", root=tmp_path / "store")
    with pytest.raises(ConfigError, match="no data set 'y'"):
        describe("y", tmp_path / "store")
    for damage in ("{", '{"source": 1}', "[]"):
        (path / "import.json").write_text(damage)
        with pytest.raises(DataError, match=r"import\.json cannot be read") as refusal:
            describe("x", tmp_path / "store")
        assert "Import the data set again" in refusal.value.hint
