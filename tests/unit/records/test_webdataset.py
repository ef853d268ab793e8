"""Tar files of samples become records; a sample that is not whole is refused."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.intake import Intake
from dppm_model.records.listing import Choices
from dppm_model.records.shards import open_records
from tests.support.imports import imported
from tests.support.mutations import twin
from tests.support.scenes import encoded, scene

Members = list[tuple[str, bytes]]


def write(path: Path, members: Members, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def samples(numbers: range, **facts: Any) -> Members:
    """``cls`` labels; with facts, JSON of them, each a function of the number."""
    members = []
    for i in numbers:
        members.append((f"s/{i:04d}.png", encoded(scene(i))))
        if facts:
            found = {name: value(i) for name, value in facts.items()}
            members.append((f"s/{i:04d}.json", json.dumps(found).encode()))
        else:
            members.append((f"s/{i:04d}.cls", f"{i % 2}\n".encode()))
    return members


@twin(
    "a picture is read from where the next one begins",
    "dppm_model.records.webdataset:_read",
    lambda whole: (
        lambda path, part: whole(path, part if part[1] < 9 else (part[0] + 1024, part[1]))
    ),
)
def test_labels_in_cls(tmp_path: Path, store: Path) -> None:
    folder, _ = imported(write(tmp_path / "a.tar", samples(range(10))), store, test_fraction=0)
    records = open_records(folder / "train")
    assert records.manifest.classes == ("0", "1")
    assert records.labels.tolist() == [0, 1] * 5
    assert (records.images[7, 0] == np.asarray(scene(7))).all()


def test_json_is_a_table_with_persons(tmp_path: Path, store: Path) -> None:
    members = samples(
        range(16),
        label=lambda i: ["ill", "well"][i % 2],
        patient_id=lambda i: i // 4,
        width=lambda i: 12,
        boxes=lambda i: [1, 2],
        filename=lambda i: f"{i}.png",
    )
    folder, said = imported(write(tmp_path / "a.tar", members), store)
    records = open_records(folder / "train")
    assert records.manifest.classes == ("ill", "well")
    assert len({*records.persons.tolist()}) == 3
    assert "'patient_id' is taken as the person" in said and "'width' not used" in said


def test_cls_comes_before_a_label_in_json(tmp_path: Path, store: Path) -> None:
    members = [*samples(range(8)), *samples(range(8), **{"class": lambda i: "x"})[1::2]]
    path = write(tmp_path / "a.tar", members)
    folder, _ = imported(path, store / "a", test_fraction=0)
    assert open_records(folder / "train").manifest.classes == ("0", "1")
    folder, _ = imported(path, store / "b", Choices(label="class"), test_fraction=0)
    assert open_records(folder / "train").manifest.classes == ("x",)


def test_splits_by_the_names_of_files(tmp_path: Path, store: Path) -> None:
    write(tmp_path / "a" / "train-000000.tar", samples(range(10)))
    write(tmp_path / "a" / "train-000001.tar", samples(range(10, 14)))
    write(tmp_path / "a" / "test-000000.tar", samples(range(14, 18)))
    folder, _ = imported(tmp_path / "a", store)
    assert len(open_records(folder / "train")) == 14 and len(open_records(folder / "test")) == 4


def test_other_members_are_passed_over_and_named(tmp_path: Path, store: Path) -> None:
    members = [
        *samples(range(4)),
        ("s/._0000.png", b"x"),
        ("s/0000.seg.png", b"x"),
        ("notes", b"x"),
    ]
    folder, said = imported(write(tmp_path / "a.tar", members), store, test_fraction=0)
    assert len(open_records(folder / "train")) == 4
    kept = Intake.read(folder)
    assert kept is not None
    assert {one.reason: one.count for one in kept.skipped} == {
        "hidden members": 1,
        "members .": 1,
        "members .seg.png": 1,
    }
    assert "Passed over: 1 hidden members" in said


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([("a.png", encoded(scene(0)))], "neither cls nor json"),
        ([("a.cls", b"1")], "has 0 images"),
        ([("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")], "has 2 images"),
        ([*samples(range(2)), ("s/0000.png", b"x")], r"0000\.png occurs twice"),
        ([("a.png", encoded(scene(0))), ("a.cls", b"\xff")], "cls is not UTF-8"),
        ([("a.png", encoded(scene(0))), ("a.cls", b" ")], "label is empty"),
        ([("a.png", encoded(scene(0))), ("a.json", b"[1]")], "json is no object"),
        ([("a.png", encoded(scene(0))), ("a.json", b"{")], "json is no object"),
        ([("a.png", encoded(scene(0))), ("a.json", b'{"age": 3}')], "no column label"),
        ([*samples(range(2)), ("s/1.png", b"x"), ("s/1.cls", b"1")], "no readable image"),
        ([("notes", b"x")], "has no images"),
    ],
)
def test_samples_that_are_not_whole_are_refused(
    tmp_path: Path, store: Path, members: Members, cause: str
) -> None:
    with pytest.raises(DataError, match=cause):
        imported(write(tmp_path / "a.tar", members), store, test_fraction=0)
    assert not store.exists()


def test_links_cut_and_compressed_files_are_refused(tmp_path: Path, store: Path) -> None:
    path = write(tmp_path / "a.tar", samples(range(4)))
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("s/0009.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DataError, match="is no plain file"):
        imported(path, store)
    path = write(tmp_path / "a.tar", samples(range(4)))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError):
        imported(path, store)
    with pytest.raises(DataError, match="no readable tar file"):
        imported(write(tmp_path / "b.tar", samples(range(4)), "w:gz"), store)
    with pytest.raises(ConfigError, match="--person is 'x'"):
        imported(write(tmp_path / "a.tar", samples(range(4))), store, Choices(person="x"))
    assert not store.exists()


def test_a_folder_of_images_is_no_archive(tmp_path: Path, store: Path) -> None:
    for i in range(4):
        place = tmp_path / "a" / ("ill" if i % 2 else "well")
        place.mkdir(parents=True, exist_ok=True)
        scene(i).save(place / f"{i}.png")
    write(tmp_path / "a" / "backup.tar", samples(range(4)))
    folder, said = imported(tmp_path / "a", store, test_fraction=0)
    assert open_records(folder / "train").manifest.classes == ("ill", "well")
    assert "1 files beside the class folders" in said
