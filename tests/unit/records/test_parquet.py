"""Parquet files as Hugging Face lays them out become records, and nothing of them is guessed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.cli import main
from dppm_model.errors import ConfigError, DataError
from dppm_model.records import parquet
from dppm_model.records.intake import Intake
from dppm_model.records.listing import Choices
from dppm_model.records.shards import open_records
from tests.support.imports import imported
from tests.support.mutations import twin
from tests.support.scenes import encoded, scene

NAMES = ["well", "ill"]  # not in the order of the alphabet
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}


def write(
    file: Path,
    numbers: range,
    features: dict[str, Any] | None = FEATURES,
    image: str = "image",
    **columns: Any,
) -> Path:
    """Pictures of two classes, four a row group; a column of None is left out."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = [{"bytes": encoded(scene(i)), "path": f"p{i}.png"} for i in numbers]
    found = {image: pa.array(content, IMAGE), "label": [i % 2 for i in numbers], **columns}
    table = pa.table({name: column for name, column in found.items() if column is not None})
    if features is not None:
        raw = (
            features
            if isinstance(features, bytes)
            else json.dumps({"info": {"features": features}})
        )
        table = table.replace_schema_metadata({"huggingface": raw})
    pq.write_table(table, file, row_group_size=4)
    return file


@twin(
    "a label is taken for its neighbour's name",
    "dppm_model.records.parquet:_text",
    lambda whole: lambda value, classes, *rest: whole(value, classes and classes[::-1], *rest),
)
def test_names_of_classes_come_from_the_schema(tmp_path: Path, store: Path) -> None:
    folder, _ = imported(write(tmp_path / "a.parquet", range(10)), store, test_fraction=0)
    records = open_records(folder / "train")
    assert records.manifest.classes == ("well", "ill")
    assert records.labels.tolist() == [0, 1] * 5
    assert (records.images[7, 0] == np.asarray(scene(7))).all()


def test_files_of_splits_are_taken_as_such(tmp_path: Path, store: Path) -> None:
    source = tmp_path / "repository"
    write(source / "data" / "train-00000-of-00002.parquet", range(6))
    write(source / "data" / "train-00001-of-00002.parquet", range(6, 10))
    write(source / "data" / "validation-00000-of-00001.parquet", range(10, 12))
    write(source / "data" / "test-00000-of-00001.parquet", range(12, 16))
    (source / "README.md").write_text("x")
    (source / ".cache").mkdir()
    write(source / ".cache" / "train-0.parquet", range(3))
    folder, said = imported(source, store)
    assert len(open_records(folder / "train")) == 12
    test = open_records(folder / "test")
    assert [int((test.images[i, 0] == np.asarray(scene(12 + i))).all()) for i in range(4)] == [
        1
    ] * 4
    assert "The files' names say what is held out; val joins train." in said
    kept = Intake.read(folder)
    assert kept is not None and [one.reason for one in kept.skipped] == ["files .md"]


def test_folders_may_name_the_splits_and_one_side_alone_is_none(
    tmp_path: Path, store: Path
) -> None:
    write(tmp_path / "a" / "train" / "0000.parquet", range(20))
    folder, _ = imported(tmp_path / "a", store / "a")
    assert len(open_records(folder / "test")) == 2  # a tenth
    write(tmp_path / "a" / "test" / "0000.parquet", range(20, 23))
    folder, _ = imported(tmp_path / "a", store / "b")
    assert len(open_records(folder / "test")) == 3
    write(tmp_path / "a" / "more" / "0000.parquet", range(23, 25))
    with pytest.raises(DataError, match=r"more.0000\.parquet names no split"):
        imported(tmp_path / "a", store / "c")


@pytest.mark.parametrize("image", ["img", "picture"])
def test_without_metadata_types_and_usual_names_do(tmp_path: Path, store: Path, image: str) -> None:
    plain = [encoded(scene(i)) for i in range(8)]
    path = write(tmp_path / "a.parquet", range(8), None, image, label=None, Target=["b", "a"] * 4)
    imported(path, store / "a", test_fraction=0)
    path = write(
        tmp_path / "b.parquet", range(8), None, image, **{image: plain}, label=["b", "a"] * 4
    )
    folder, _ = imported(path, store / "b", test_fraction=0)
    assert open_records(folder / "train").manifest.classes == ("a", "b")


def test_persons_are_found_also_inside_a_struct(tmp_path: Path, store: Path) -> None:
    who = [f"p{i // 4}" for i in range(16)]
    folder, said = imported(write(tmp_path / "a.parquet", range(16), PatientID=who), store / "a")
    assert len({*open_records(folder / "train").persons.tolist()}) == 3
    assert "'PatientID' is taken as the person" in said
    nested = pa.array([{"id": one, "site": "x"} for one in who])
    folder, _ = imported(write(tmp_path / "b.parquet", range(16), patient=nested), store / "b")
    assert len({*open_records(folder / "train").persons.tolist()}) == 3


def test_refusals_of_tables_hold_here(tmp_path: Path, store: Path) -> None:
    sixteen = range(16)
    two = [f"{'P' if i == 3 else 'p'}{i // 4}" for i in sixteen]
    for columns, cause in (
        ({"mrn": [f"m{i // 2}" for i in sixteen]}, "'mrn' may say whose"),
        ({"person": two}, "suspicious persons"),
        ({"person": [None, *two[1:]]}, "row 1: person is empty"),
        ({"label": [None, *([1, 0] * 8)[1:]]}, "row 1: label is empty"),
        ({"label": [0, -1] * 8}, r"row 2: label is -1, which is none of its 2 classes"),
        ({"label": [0, 2] * 8}, "label is 2"),
        ({"diagnosis": ["a", "b"] * 8}, "'label', 'diagnosis' could each be the label"),
        ({"label": None, "age": [3] * 16}, "no column label"),
        ({"second": [encoded(scene(i)) for i in sixteen]}, None),
    ):
        path = write(tmp_path / "a.parquet", sixteen, **columns)
        if cause is None:
            imported(path, store / "ok")
            continue
        with pytest.raises(DataError, match=cause):
            imported(path, store)
        assert not store.exists()
    path = write(tmp_path / "b.parquet", sixteen, diagnosis=["a", "b"] * 8, path=["x"] * 16)
    folder, said = imported(path, store, Choices(label="diagnosis"))
    assert open_records(folder / "train").manifest.classes == ("a", "b")
    assert "Column 'label' not used" in said and "Column 'path' not used" in said
    with pytest.raises(ConfigError, match="--label is 'no'"):
        imported(path, store / "c", Choices(label="no"))


def test_persons_on_both_sides_and_copies_are_refused_or_said(tmp_path: Path, store: Path) -> None:
    source = tmp_path / "a"
    write(source / "train-0.parquet", range(6), person=list("aabbcc"))
    write(source / "test-0.parquet", range(6, 8), person=list("cd"))
    with pytest.raises(DataError, match="1 persons have training and test"):
        imported(source, store)
    shutil.rmtree(source)
    write(source / "a.parquet", range(6))
    shutil.copy(source / "a.parquet", source / "b.parquet")
    _, said = imported(source, store / "a")
    assert "6 exact copies" in said
    (source / "c.parquet").symlink_to(source / "a.parquet")  # one file, one set of records
    folder, _ = imported(source, store / "b", test_fraction=0)
    assert len(open_records(folder / "train")) == 12


def test_images_that_are_not_there_or_not_readable_are_refused(tmp_path: Path, store: Path) -> None:
    good = {"bytes": encoded(scene(0)), "path": "x"}
    frames = encoded(scene(1), "TIFF", save_all=True, append_images=[scene(2)])
    for content, cause in (
        ({"bytes": None, "path": "x.png"}, "row 2 holds no image"),
        (None, "row 2 holds no image"),
        ({"bytes": b"no image", "path": "x"}, "row 2 is no readable image"),
        ({"bytes": frames, "path": "x"}, "row 2 has 2 pages"),
    ):
        columns = {"picture": pa.array([good, content], IMAGE)}
        path = write(tmp_path / "a.parquet", range(2), None, "picture", **columns)
        with pytest.raises(DataError, match=cause):
            imported(path, store, test_fraction=0)
        assert not store.exists()


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, store: Path) -> None:
    source = tmp_path / "a"
    write(source / "a.parquet", range(4))
    other = {**FEATURES, "label": {"names": NAMES[::-1], "_type": "ClassLabel"}}
    write(source / "b.parquet", range(4, 8), other)
    with pytest.raises(DataError, match=r"b\.parquet has other columns, types or class names"):
        imported(source, store)


@pytest.mark.parametrize("damage", ["cut", "text", "metadata", "empty", "two images"])
def test_damage_is_refused(tmp_path: Path, store: Path, damage: str) -> None:
    path = write(tmp_path / "a.parquet", range(8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no parquet")
    elif damage == "metadata":
        write(path, range(8), b"{")
    elif damage == "empty":
        write(path, range(0))
    else:
        more = pa.array([{"bytes": b"", "path": ""}] * 8, IMAGE)
        write(path, range(8), None, second=more)
    with pytest.raises(DataError):
        imported(path, store)
    assert not store.exists()


def test_a_missing_library_is_named(tmp_path: Path, store: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.parquet", range(4))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'dppm\[parquet\]'"):
        imported(path, store)


def test_a_group_is_read_once(tmp_path: Path, store: Path, monkeypatch) -> None:
    counted: list[int] = []
    whole = parquet._opened
    monkeypatch.setattr(parquet, "_opened", lambda p: counted.append(1) or whole(p))
    imported(write(tmp_path / "a.parquet", range(64)), store, test_fraction=0)
    assert len(counted) < 2 * 16 + 16


def test_the_command_takes_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    path = write(tmp_path / "a.parquet", range(20), kind=["a", "b"] * 10)
    assert main(["data", "import", str(path), "--name", "x", "--label", "kind"]) == 0
    assert open_records(tmp_path / "store" / "x" / "train").manifest.classes == ("a", "b")
