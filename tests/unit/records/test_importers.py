"""People's own images: read as they are, refused by name, never half there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.importers import import_dataset
from dppm_model.records.shards import open_records
from dppm_model.records.writing import verify
from tests.support.mutations import twin


def picture(path: Path, value: object = 0, size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten grey 6×4 images, each of its own shade."""
    for i in range(20):
        picture(tmp_path / "scans" / ("ill" if i % 2 else "well") / f"{i:02}.png", 10 * i)
    return tmp_path / "scans"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def csv_of(folder: Path, rows: list[str], head: str = "file,label,person") -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


# -- folders


def test_a_folder_is_imported_whole(folder: Path, store: Path) -> None:
    said = []
    path = import_dataset(
        folder, "scans", root=store, test_fraction=0.2, progress=lambda *what: said.append(what)
    )
    train, test = open_records(path / "train"), open_records(path / "test")
    for split in ("train", "test"):
        verify(path / split)
    assert train.manifest.shape == (1, 4, 6)
    assert train.manifest.classes == ("ill", "well")
    assert (len(train), len(test)) == (16, 4)
    shades = [
        (int(x[0, 0, 0]), int(y))
        for r in (train, test)
        for x, y in zip(r.images, r.labels, strict=True)
    ]
    assert sorted(shades) == [(10 * i, 1 - i % 2) for i in range(20)]
    assert said[-1] == ("scans: 20 images written", 1.0)


def test_the_same_seed_holds_out_the_same_records(folder: Path, store: Path) -> None:
    digests = [
        open_records(
            import_dataset(folder, name, root=store, test_fraction=0.5, seed=seed) / "test"
        ).manifest.digest
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_without_a_fraction_held_out_there_is_no_test_split(folder: Path, store: Path) -> None:
    path = import_dataset(folder, "scans", root=store, test_fraction=0)
    assert {p.name for p in path.iterdir()} == {"train", "import.json"}


def test_jpeg_and_png_and_one_image_in_colour_make_rgb(folder: Path, store: Path) -> None:
    picture(folder / "ill" / "99.JPG", (200, 10, 10), mode="RGB")
    (folder / "ill" / "notes.txt").write_text("not an image")
    (folder / "ill" / "._00.png").write_bytes(b"left by another system")
    (folder / ".cache").mkdir()
    records = open_records(import_dataset(folder, "scans", root=store, test_fraction=0) / "train")
    assert records.manifest.shape == (3, 4, 6)
    assert len(records) == 21
    np.testing.assert_allclose(records.images[-11:][0, :, 0, 0], [200, 10, 10], atol=6)


def test_transparency_is_laid_on_white_and_exif_turns_upright(tmp_path: Path, store: Path) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    (tmp_path / "f" / "a").mkdir(parents=True)
    image.save(tmp_path / "f" / "a" / "0.png")
    turned = Image.new("RGB", (4, 4), "black")
    turned.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    turned.save(tmp_path / "f" / "a" / "1.png", exif=exif)
    path = import_dataset(tmp_path / "f", "f", root=store, test_fraction=0)
    first, second = open_records(path / "train").images
    assert first[:, 0, 0].tolist() == [0, 0, 255]
    assert first[:, 1, 1].tolist() == [255, 255, 255]
    assert second[:, 3, 3].tolist() == [255, 255, 255]
    assert second[:, 0, 0].tolist() == [0, 0, 0]


def test_sizes_that_differ_need_a_size(folder: Path, store: Path) -> None:
    odd = picture(folder / "well" / "99.png", 7, (9, 9))
    with pytest.raises(DataError, match=odd.name) as refusal:
        import_dataset(folder, "scans", root=store)
    assert "--size" in refusal.value.hint
    assert not store.exists()
    path = import_dataset(folder, "scans", root=store, size=8)
    assert open_records(path / "train").manifest.shape == (1, 8, 8)


def test_resizing_keeps_proportions(tmp_path: Path, store: Path) -> None:
    """A centred square in a wide image stays a square: it is cut, not squeezed."""
    image = Image.new("L", (64, 32))
    image.paste(255, (24, 8, 40, 24))
    (tmp_path / "f" / "a").mkdir(parents=True)
    image.save(tmp_path / "f" / "a" / "0.png")
    path = import_dataset(tmp_path / "f", "f", root=store, size=16, test_fraction=0)
    bright = open_records(path / "train").images[0, 0] > 127
    assert bright.any(axis=0).sum() == bright.any(axis=1).sum() == 8


def test_sixteen_bits_are_refused_not_cut_off(folder: Path, store: Path) -> None:
    deep = Image.fromarray(np.full((4, 6), 4000, np.uint16))
    deep.save(folder / "ill" / "17.png")
    with pytest.raises(DataError, match=r"17\.png has more than 8 bits"):
        import_dataset(folder, "scans", root=store)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-25])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [lambda p: p.write_bytes(b""), lambda p: p.write_text("hello"), truncate, flip]
)
@pytest.mark.parametrize("number", ["00", "13", "19"])
def test_a_corrupt_image_is_named_and_nothing_is_left(
    folder: Path, store: Path, number: str, damage: Callable[[Path], None]
) -> None:
    damage(next(folder.rglob(f"{number}.png")))
    with pytest.raises(DataError, match=rf"{number}\.png is no readable image"):
        import_dataset(folder, "scans", root=store, test_fraction=0.3)
    assert not store.exists() or list(store.iterdir()) == []


def test_an_existing_data_set_is_never_replaced(folder: Path, store: Path) -> None:
    path = import_dataset(folder, "scans", root=store, test_fraction=0.5)
    before = open_records(path / "train").manifest
    with pytest.raises(ConfigError, match="exists"):
        import_dataset(folder, "scans", root=store, test_fraction=0)
    assert open_records(path / "train").manifest == before


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"name": "mnist"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"size": 0}, "size"),
        ({"test_fraction": 1.0}, "test-fraction"),
        ({"test_fraction": float("nan")}, "test-fraction"),
    ],
)
def test_wrong_arguments_are_named(folder: Path, store: Path, options: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        import_dataset(folder, **{"name": "scans", "root": store, **options})


def test_what_is_no_data_set_is_named(tmp_path: Path, store: Path) -> None:
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="no images"):
        import_dataset(tmp_path / "empty", "x", root=store)
    picture(tmp_path / "empty" / "b" / "0.png")
    with pytest.raises(DataError, match="empty/a has no images"):
        import_dataset(tmp_path / "empty", "x", root=store)
    with pytest.raises(DataError, match="not a folder"):
        import_dataset(tmp_path / "absent", "x", root=store)


# -- CSV


def _hold_out_records(listing: Any, fraction: float, rng: np.random.Generator) -> np.ndarray:
    return np.isin(np.arange(len(listing)), rng.permutation(len(listing))[:8])


@twin(
    "records are held out without regard to whose they are",
    "dppm_model.records.importers:hold_out",
    lambda _: _hold_out_records,
)
def test_a_csv_keeps_persons_on_one_side(folder: Path, store: Path) -> None:
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.png"))
    rows = [f"{file},{file.parent},patient {i % 5}" for i, file in enumerate(files)]
    path = import_dataset(csv_of(folder, rows), "scans", root=store, test_fraction=0.4)
    assert open_records(path / "train").manifest.persons
    assert (len(open_records(path / "train")), len(open_records(path / "test"))) == (12, 8)
    train, test = (set(open_records(path / s).persons.tolist()) for s in ("train", "test"))
    assert not train & test


def test_a_csv_without_persons_from_a_spreadsheet(folder: Path, store: Path) -> None:
    path = csv_of(folder, ["ill/01.png,2", "well/02.png,0"], "\ufefffile,label")
    records = open_records(import_dataset(path, "scans", root=store, test_fraction=0) / "train")
    assert records.manifest.classes == ("0", "2")
    assert records.labels.tolist() == [1, 0]
    assert records.persons is None


@pytest.mark.parametrize(
    ("rows", "head", "cause"),
    [
        ([], "file,label", "no rows"),
        (["ill/01.png,1"], "thing,label", "no column file among thing, label"),
        (["ill/01.png"], "file,label", "row 2 has 1 values for 2 columns"),
        (["ill/01.png, "], "file,label", "row 2: label is empty"),
        (["ill/01.png,1,p", "ill/03.png,1,"], "file,label,person", "row 3: person is empty"),
        (["ill/01.png,1", "ill/01.png,0"], "file,label", r"row 3 names ill/01\.png again"),
        (["ill/01.png,1", "ill/77.png,1"], "file,label", r"77\.png cannot be read \(No such file"),
        (["ill/01.png,1,p", "ill/03.png,1,p"], "file,label,person", "every record"),
    ],
)
def test_a_wrong_csv_is_refused(folder: Path, store: Path, rows, head: str, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        import_dataset(csv_of(folder, rows, head), "scans", root=store)


def test_a_csv_in_another_encoding_is_refused(folder: Path, store: Path) -> None:
    (folder / "list.csv").write_bytes("file,label\nill/01.png,gesündig\n".encode("latin1"))
    with pytest.raises(DataError, match="UTF-8"):
        import_dataset(folder / "list.csv", "scans", root=store)


# -- MedMNIST


def medmnist(path: Path, *, colour: bool = False, **changes: np.ndarray | None) -> Path:
    """A file as MedMNIST writes it: uint8 images (n, H, W[, 3]), labels (n, 1)."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        shape = (count, 5, 5, 3) if colour else (count, 5, 5)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("colour", [False, True])
def test_medmnist_is_imported_with_validation_in_training(tmp_path, store, colour: bool) -> None:
    source = medmnist(tmp_path / "m.npz", colour=colour)
    path = import_dataset(source, "med", root=store)
    train, test = open_records(path / "train"), open_records(path / "test")
    raw = np.load(source)
    images = np.concatenate([raw["train_images"], raw["val_images"]])
    expected = np.moveaxis(images, -1, 1) if colour else images[:, None]
    np.testing.assert_array_equal(train.images, expected)
    np.testing.assert_array_equal(train.labels, [0, 1, 2, 0, 1, 2, 0, 1, 2])
    assert (len(test), train.manifest.classes) == (2, ("0", "1", "2"))


def test_medmnist_without_a_test_split_is_held_out_from_as_others(tmp_path, store) -> None:
    changes = dict.fromkeys(["val_images", "val_labels", "test_images", "test_labels"])
    path = import_dataset(medmnist(tmp_path / "m.npz", **changes), "med", root=store)
    assert sorted(open_records(path / "test").labels.tolist()) == [0, 1, 2]
    assert sorted(open_records(path / "train").labels.tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"train_images": None}, "lacks train_images"),
        ({"test_labels": None}, "lacks test_labels"),
        ({"train_images": np.full((6, 5, 5), np.nan)}, "float64, not uint8"),
        ({"train_images": np.zeros((6, 5, 5))}, "float64"),
        ({"train_images": np.zeros((6, 5, 5, 5), np.uint8)}, "volumes"),
        ({"train_images": np.zeros((5, 5, 5), np.uint8)}, "5 images for 6 labels"),
        ({"train_labels": np.zeros((6, 14), np.uint8)}, "labels have shape"),
        ({"train_labels": np.zeros((6, 1), np.float32)}, "labels are float32"),
        ({"train_images": np.array([None])}, "not readable"),
    ],
)
def test_a_wrong_npz_is_refused_and_leaves_nothing(tmp_path, store, changes, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        import_dataset(medmnist(tmp_path / "m.npz", **changes), "med", root=store)
    assert not store.exists()


def test_a_damaged_npz_is_refused(tmp_path: Path, store: Path) -> None:
    source = medmnist(tmp_path / "m.npz")
    content = source.read_bytes()
    for damaged in (b"", b"hello", content[:-40], content[:300] + b"\xff" * 40 + content[340:]):
        source.write_bytes(damaged)
        with pytest.raises(DataError, match=r"readable|no npz"):
            import_dataset(source, "med", root=store)
    with source.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="not an npz"):
        import_dataset(source, "med", root=store)


def test_an_npz_is_resized_and_its_labels_may_be_text_or_codes(tmp_path: Path, store: Path) -> None:
    changes = dict.fromkeys(["val_images", "val_labels", "test_images", "test_labels"])
    for name, labels, classes in (
        ("text", np.array(["ill", "well"] * 3), ("ill", "well")),
        ("codes", np.array([30_000_000, 7] * 3), ("7", "30000000")),
        ("ones", np.array([1, 2] * 3), ("1", "2")),
    ):
        source = medmnist(tmp_path / f"{name}.npz", train_labels=labels, **changes)
        records = open_records(import_dataset(source, name, root=store, size=8) / "train")
        assert records.manifest.shape == (1, 8, 8)
        assert records.manifest.classes == classes
