"""Slices of NIfTI volumes: the right way round, one person a volume, nothing taken silently."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from deploy.cli import main
from dppm_model.errors import ConfigError, DataError
from dppm_model.records.importers import import_dataset
from dppm_model.records.listing import Choices
from dppm_model.records.nifti import Slices
from dppm_model.records.shards import open_records
from tests.support.imports import imported
from tests.support.mutations import twin
from tests.support.scenes import scene

SIZE = 12


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-1000, 2000, (SIZE,) * 3).astype(np.int16)


def save(path: Path, values: np.ndarray, affine: Any = None, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def taken(path: Path, store: Path, choices: Choices | None = None, **options: Any):
    folder, said = imported(path, store, choices, **{"test_fraction": 0.0, **options})
    return open_records(folder / "train"), said


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four volumes of two classes, two of them compressed."""
    for i in range(4):
        name = f"{i}.nii.gz" if i > 1 else f"{i}.nii"
        save(tmp_path / "scans" / ("ill" if i % 2 else "well") / name, noise(i))
    return tmp_path / "scans"


@twin(
    "slices are persons of their own",
    "dppm_model.records.importers:with_volumes",
    lambda whole: lambda listing, choices: whole(listing, Choices(no_person=True)),
)
def test_a_volume_is_one_person_and_each_slice_a_record(source: Path, store: Path) -> None:
    records, said = taken(source, store)
    assert len(records) == 4 * SIZE
    assert np.unique_counts(records.persons).counts.tolist() == [SIZE] * 4
    assert "48 axial slices of 4 volumes" in said and "percentiles 0.5 and 99.5" in said
    assert "Each volume is taken as one person" in said


def test_persons_of_a_table_come_first_and_can_be_given_up(source: Path, store: Path) -> None:
    rows = [f"{'ill' if i % 2 else 'well'}/{i}.nii{'.gz' * (i > 1)},c,p{i // 2}" for i in range(4)]
    (source / "list.csv").write_text("\n".join(["file,label,person", *rows]))
    records, said = taken(source / "list.csv", store / "a")
    assert len({*records.persons.tolist()}) == 2
    assert "taken as one person" not in said
    records, said = taken(source, store / "b", Choices(no_person=True))
    assert records.persons is None and "protects single slices" in said


def test_a_person_is_on_one_side(source: Path, store: Path) -> None:
    folder = import_dataset(source, "x", root=store, test_fraction=0.5)
    train, test = (open_records(folder / split) for split in ("train", "test"))
    assert len(train) == len(test) == 2 * SIZE
    assert not {*train.persons.tolist()} & {*test.persons.tolist()}


def marked() -> np.ndarray:
    """A volume, in RAS+, with a bright voxel to the right, anterior and superior of its middle."""
    values = np.zeros((9, 11, 13), np.int16)
    values[7, 9, 11] = 100
    return values


@pytest.mark.parametrize(
    ("axis", "number", "row", "column"),
    [("axial", 11, 1, 1), ("coronal", 9, 1, 1), ("sagittal", 7, 1, 1)],
)
@twin(
    "slices are mirrored",
    "dppm_model.records.nifti:_in_8_bits",
    lambda whole: lambda values, image: whole(values, image)[::-1],
)
def test_slices_lie_as_radiologists_look_at_them(
    tmp_path: Path, store: Path, axis: str, number: int, row: int, column: int
) -> None:
    ras = nibabel.Nifti1Image(marked(), np.eye(4))
    for lie in ("RAS", "LPI", "SAR", "PIL"):
        codes = nibabel.orientations.axcodes2ornt(lie)
        turned = ras.as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.orientations.io_orientation(np.eye(4)), codes
            )
        )
        assert "".join(nibabel.aff2axcodes(turned.affine)) == lie
        place = tmp_path / lie
        (place / "a").mkdir(parents=True)
        nibabel.save(turned, place / "a" / "v.nii")
        slices = Slices.of(axis, f"{number}:{number + 1}")
        records, _ = taken(place, store / lie, Choices(slices=slices))
        assert len(records) == 1
        assert np.argwhere(records.images[0, 0] == 255).tolist() == [[row, column]]


def test_pixels_become_square(tmp_path: Path, store: Path) -> None:
    affine = np.diag([1, 1, 3, 1])
    save(tmp_path / "a" / "x" / "v.nii", noise(0), affine)
    records, _ = taken(tmp_path / "a", store, Choices(slices=Slices.of("coronal", None)))
    assert records.images.shape[1:] == (1, 3 * SIZE, SIZE)


def test_one_window_a_volume_and_8_bits_as_they_are(tmp_path: Path, store: Path) -> None:
    ramp = np.broadcast_to(np.arange(SIZE, dtype=np.int16) * 100, (SIZE,) * 3)
    save(tmp_path / "a" / "x" / "v.nii", ramp.copy())
    records, _ = taken(tmp_path / "a", store / "a", Choices(as_written=True))
    grey = [int(np.unique(image)[0]) for image in records.images]
    assert grey == [round(255 * i / (SIZE - 1)) for i in range(SIZE)]
    save(tmp_path / "b" / "x" / "v.nii", (ramp // 100).astype(np.uint8))
    records, _ = taken(tmp_path / "b", store / "b")
    assert [int(image.max()) for image in records.images] == [*range(SIZE)]


def test_scale_and_intercept_of_the_header_count(tmp_path: Path, store: Path) -> None:
    image = nibabel.Nifti1Image(noise(0).astype(np.float32), np.eye(4))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, -100)
    (tmp_path / "a" / "x").mkdir(parents=True)
    nibabel.save(image, tmp_path / "a" / "x" / "v.nii")
    save(tmp_path / "b" / "x" / "v.nii", noise(0))
    one, _ = taken(tmp_path / "a", store / "a")
    other, _ = taken(tmp_path / "b", store / "b")
    assert (one.images == other.images).all()


@pytest.mark.parametrize(
    ("text", "taken_of_12"),
    [(None, range(12)), ("25%:75%", range(3, 9)), ("2:5", range(2, 5)), ("10:99", range(10, 12))],
)
def test_ranges(text: str | None, taken_of_12: range) -> None:
    assert Slices.of("axial", text).numbers(12) == taken_of_12


@pytest.mark.parametrize("text", ["5", "5:5", "7:3", "20%:30", "0%:101%", "-1:4", "a:b", "1:2:3"])
def test_wrong_ranges_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--slices"):
        Slices.of("axial", text)


def test_what_is_no_volume_of_grey_values_is_refused(tmp_path: Path, store: Path) -> None:
    colour = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    holes = noise(0).astype(np.float32)
    holes[0, 0, 0] = np.nan
    path = tmp_path / "a" / "x" / "v.nii"
    for values, cause in (
        (np.zeros((4, 4, 4, 2), np.int16), "not that of one volume"),
        (np.zeros((4, 4), np.int16), "not that of one volume"),
        (colour, "not grey values"),
        (holes, "not finite"),
        (np.zeros((4, 4, 4), np.complex64), "not grey values"),
    ):
        save(path, values)
        with pytest.raises(DataError, match=cause):
            taken(tmp_path / "a", store)
    save(path, noise(0)[..., None])
    taken(tmp_path / "a", store / "a")  # a fourth axis of one
    with pytest.raises(DataError, match="has 12 axial slices, none of which"):
        taken(tmp_path / "a", store / "b", Choices(slices=Slices.of("axial", "12:14")))
    content = path.read_bytes()
    for damage in (content[:400], b"no volume", content[: len(content) // 2]):
        path.write_bytes(damage)
        with pytest.raises(DataError):
            taken(tmp_path / "a", store / "b")
    assert not (store / "b").exists()


def test_pictures_beside_volumes_need_persons(source: Path, store: Path) -> None:
    scene(1).save(source / "ill" / "1.png")
    with pytest.raises(DataError, match="1 pictures are no slices of volumes"):
        taken(source, store)


def test_a_volume_without_orientation_is_said(tmp_path: Path, store: Path) -> None:
    image = nibabel.Nifti1Image(noise(0), None)
    (tmp_path / "a" / "x").mkdir(parents=True)
    nibabel.save(image, tmp_path / "a" / "x" / "v.nii")
    _, said = taken(tmp_path / "a", store)
    assert "1 volumes do not say how they lie" in said


def test_a_copy_of_a_volume_is_said_to_be_two_persons(source: Path, store: Path) -> None:
    save(source / "ill" / "again.nii", noise(1))
    _, said = taken(source, store)
    assert "12 exact copies" in said and "12 of them under another class or person" in said


def test_a_missing_library_is_named(source: Path, store: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ConfigError, match=r"pip install 'dppm\[nifti\]'"):
        taken(source, store)


def test_the_command(source: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPPM_DATA", str(store))
    typed = ["data", "import", str(source), "--name", "x", "--axis", "sagittal"]
    assert main([*typed, "--slices", "40%:60%", "--test-fraction", "0"]) == 0
    assert len(open_records(store / "x" / "train")) == 4 * 2
    assert main([*typed, "--slices", "60%:40%"]) == 10
