"""What hospitals have: nothing of it is taken silently, and a wrong unit never."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.listing import Choices
from dppm_model.records.shards import Records, open_records
from tests.support.imports import imported
from tests.support.mutations import twin

SIZE = 12


def scene(number: int, colour: bool = False) -> Image.Image:
    """A picture that looks like no other one."""
    shape = (SIZE, SIZE, 3) if colour else (SIZE, SIZE)
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight pictures of two classes."""
    for i in range(8):
        save(scene(i), tmp_path / "scans" / ("ill" if i % 2 else "well") / f"{i}.png")
    return tmp_path / "scans"


class Imported:
    """What an import took, and what it said."""

    def __init__(self, path: Path, store: Path, choices: Choices | None = None, **options: object):
        options = {"test_fraction": 0.0, **options}
        if "test" in options or options["test_fraction"] is None:
            options.pop("test_fraction")
        self.path, self.said = imported(path, store, choices, **options)

    def records(self, split: str = "train") -> Records:
        return open_records(self.path / split)

    def persons(self) -> int:
        return len({*self.records().persons.tolist()})


def table(source: Path, head: str, *ends: str) -> Path:
    """A CSV of the pictures in order, each with the given rest of its row."""
    files = [f"{'ill' if i % 2 else 'well'}/{i}.png" for i in range(8)]
    rows = [f"{file},{end}" for file, end in zip(files, ends, strict=False)]
    path = source / "list.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


FOUR = [f"{'ill' if i % 2 else 'well'},p{i % 4}" for i in range(8)]


# -- whose an image is


@pytest.mark.parametrize("name", ["Person", "person ", "patient_id", "PatientID", "subject"])
@twin(
    "a column of persons is found by its exact name only",
    "dppm_model.records.tables:_ROLES",
    lambda roles: roles | {"person": {"persons"}},
)
def test_a_column_of_persons_is_found_under_its_usual_names(source, store, name: str) -> None:
    taken = Imported(table(source, f"File,LABEL,{name}", *FOUR), store)
    assert taken.persons() == 4
    assert (name.strip() == "person") or f"{name.strip()!r} is taken as the person" in taken.said


def test_a_column_that_looks_like_an_identity_needs_a_decision(source, store) -> None:
    path = table(source, "file,label,mrn", *FOUR)
    with pytest.raises(DataError, match="'mrn' may say whose") as refusal:
        Imported(path, store)
    assert "--person 'mrn'" in refusal.value.hint
    assert not store.exists()
    assert Imported(path, store / "a", Choices(person="MRN")).persons() == 4
    taken = Imported(path, store / "b", Choices(no_person=True))
    assert taken.records().persons is None
    assert "'mrn' not used" in taken.said


@pytest.mark.parametrize("column", ["class_number", "Class Name 2"])
def test_what_names_a_class_is_no_identity(source, store, column) -> None:
    taken = Imported(table(source, f"file,label,{column}", *FOUR), store)
    assert f"Column '{column}' not used" in taken.said


def test_persons_are_given_up_only_on_purpose_and_said(source, store) -> None:
    taken = Imported(table(source, "file,label,person", *FOUR), store, Choices(no_person=True))
    assert taken.records().persons is None
    assert "ε protects records, not persons" in taken.said


def test_an_unknown_column_is_named(source, store) -> None:
    rest = [f"{end},{i}" for i, end in enumerate(FOUR)]
    taken = Imported(table(source, "file,label,person,age", *rest), store)
    assert "Column 'age' not used" in taken.said


@pytest.mark.parametrize(
    ("head", "choices", "kind", "cause"),
    [
        ("file,label,person,patient_id", Choices(), DataError, "could each be the person"),
        ("file,label,a,b", Choices(person="c"), ConfigError, "has the columns file, label, a, b"),
        ("file,label,a,A", Choices(), DataError, "column 4 is called"),
        ("file,label,a,", Choices(), DataError, "column 4 is called"),
        ("file,label,a,b", Choices(person="a", no_person=True), ConfigError, "--no-person"),
    ],
)
def test_unclear_columns_are_refused(source, store, head, choices, kind, cause) -> None:
    with pytest.raises(kind, match=cause):
        Imported(table(source, head, *(f"{end},1" for end in FOUR)), store, choices)


def test_a_comma_too_many_is_refused_with_row_and_counts(source, store) -> None:
    rows = [*FOUR[:3], "ill, left,p3", *FOUR[4:]]
    with pytest.raises(DataError, match="row 5 has 4 values for 3 columns"):
        Imported(table(source, "file,label,person", *rows), store)


@twin(
    "blanks around values are kept",
    "dppm_model.records.tables:_trimmed",
    lambda _: lambda value: value,
)
def test_blanks_around_values_split_nobody(source, store) -> None:
    rows = [end.replace(",", " ,\u00a0 ") + " " * (i // 4) for i, end in enumerate(FOUR)]
    taken = Imported(table(source, "file , label,person", *rows), store)
    assert taken.persons() == 4
    assert taken.records().manifest.classes == ("ill", "well")


@pytest.mark.parametrize(
    "pair",
    [
        ("1", "1.0"),
        ("0001", "1"),
        ("Jos\u00e9", "Jose\u0301"),
        ("Smith", "smith"),
        ("a  b", "a b"),
        ("nan", "b"),
        ("N/A", "b"),
    ],
)
@pytest.mark.parametrize("column", ["label", "person"])
def test_two_spellings_of_one_are_refused_before_anything_is_written(
    source, store, pair, column: str
) -> None:
    values = [pair[i // 2 % 2] for i in range(8)]
    rows = [f"c,{value}" if column == "person" else f"{value},p" for value in values]
    path = table(source, "file,label,person", *rows)
    with pytest.raises(DataError, match=f"suspicious {column}s") as refusal:
        Imported(path, store)
    assert repr(pair[0]) in refusal.value.message
    assert not store.exists()
    taken = Imported(path, store, Choices(as_written=True)).records()
    assert len({*(taken.persons if column == "person" else taken.labels).tolist()}) == 2


def test_two_spellings_of_a_folder_are_refused(source, store) -> None:
    save(scene(9), source / "Ill" / "9.png")
    with pytest.raises(DataError, match="'Ill' and 'ill'"):
        Imported(source, store)


# -- the depth and the pages of a file


def png16(path: Path, channels: int) -> None:
    """A PNG with 16 bits a channel, which Pillow does not write; 0..4095 as scanners do."""
    pixels = np.arange(SIZE * SIZE * channels, dtype=">u2").reshape(SIZE, -1) % 4096
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    kind = {2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", SIZE, SIZE, 16, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    )


def tiff16(path: Path, channels: int) -> None:
    """An uncompressed TIFF with 16 bits a channel."""
    pixels = (np.arange(SIZE * SIZE * channels, dtype="<u2") % 4096).tobytes()
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    tags = [(256, 3, 1, SIZE), (257, 3, 1, SIZE), (258, 3, channels, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, 8 + len(bits)), (277, 3, 1, channels), (278, 3, 1, SIZE)]
    tags += [(279, 4, 1, len(pixels))] + ([(338, 3, 1, 2)] if channels == 4 else [])
    body = bits + pixels
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    path.write_bytes(head + body + struct.pack("<H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize(
    ("write", "channels"), [(png16, 2), (png16, 3), (png16, 4), (tiff16, 3), (tiff16, 4)]
)
def test_sixteen_bits_a_channel_are_refused(source, store, write, channels: int) -> None:
    path = source / "ill" / f"deep.{'png' if write is png16 else 'tif'}"
    write(path, channels)
    with Image.open(path) as file:
        assert np.asarray(file).max() <= 16  # Pillow itself keeps the high byte only
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        Imported(source, store)


@pytest.mark.parametrize("name", ["s.tif", "s.gif", "s.webp", "s.png"])
def test_pages_are_refused_or_taken_all(source, store, name: str) -> None:
    pages = [scene(20 + i) for i in range(3)]
    options = {"lossless": True} if name == "s.webp" else {}
    save(pages[0], source / "ill" / name, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(DataError, match=rf"{name} has 3 pages") as refusal:
        Imported(source, store)
    assert "--pages" in refusal.value.hint
    records = Imported(source, store, Choices(pages=True)).records()
    assert len(records) == 11
    found = {image.tobytes() for image in records.images[:, 0]}
    assert {np.asarray(page).tobytes() for page in pages} <= found


def test_pages_of_a_csv_keep_label_and_person(source, store) -> None:
    pages = [scene(20 + i) for i in range(3)]
    save(pages[0], source / "well" / "0.tif", save_all=True, append_images=pages[1:])
    path = table(source, "file,label,person", *FOUR)
    path.write_text(path.read_text().replace("0.png", "0.tif"))
    records = Imported(path, store, Choices(pages=True)).records()
    assert records.labels.tolist()[:4] == [1, 1, 1, 0]
    assert records.persons.tolist()[:4] == [0, 0, 0, 1]


# -- what lies beside the images, and links


def test_hidden_folders_are_passed_over_and_counted(source, store) -> None:
    for name in (".ipynb_checkpoints", ".thumbnails", "@eaDir"):
        save(scene(0), source / "ill" / name / "0.png")
        save(scene(0), source / name / "deep" / "0.png")
    (source / "list.csv").write_text("file,label\n")
    (source / "ill" / "notes.txt").write_text("x")
    taken = Imported(source, store)
    assert len(taken.records()) == 8
    assert "6 hidden folders" in taken.said
    assert "1 files beside the class folders" in taken.said
    assert "1 files .txt" in taken.said


def test_linked_folders_are_followed_once(source, store, tmp_path: Path) -> None:
    for i in range(3):
        save(scene(30 + i), tmp_path / "elsewhere" / f"{i}.png")
    (source / "ill" / "more").symlink_to(tmp_path / "elsewhere")
    (source / "ill" / "again").symlink_to(tmp_path / "elsewhere")
    (source / "ill" / "loop").symlink_to(source / "ill")
    taken = Imported(source, store)
    assert len(taken.records()) == 11
    assert "2 further names of the same folder" in taken.said


def test_a_file_of_two_classes_is_refused(source, store) -> None:
    (source / "ill" / "all").symlink_to(source / "well")
    with pytest.raises(DataError, match="both ill and well"):
        Imported(source, store)


def test_one_file_under_two_names_is_one_record(source, store) -> None:
    os.link(source / "ill" / "1.png", source / "ill" / "same.png")
    taken = Imported(source, store)
    assert len(taken.records()) == 8
    assert "1 further names of the same file" in taken.said
    path = source / "twice.csv"
    path.write_text("file,label\nill/1.png,ill\n./ill/1.png,ill\n")
    with pytest.raises(DataError, match=r"row 3 names \./ill/1\.png again, as row 2"):
        Imported(path, store / "more")


def test_what_cannot_be_reached_is_refused_by_name(source, store, monkeypatch) -> None:
    broken = source / "ill" / "gone"
    broken.symlink_to(source / "nowhere")
    with pytest.raises(DataError, match="gone cannot be read"):
        Imported(source, store)
    broken.unlink()
    os.mkfifo(source / "ill" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is neither a file nor a folder"):
        Imported(source, store)
    (source / "ill" / "pipe.png").unlink()
    save(scene(9), source / "ill" / "locked" / "9.png")
    real = os.scandir

    def locked(path: str) -> object:  # as for a user who is not root
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match=r"locked cannot be read \(Permission denied\)"):
        Imported(source, store)


# -- copies


def test_exact_copies_are_reported_and_dropped_when_asked(source, store) -> None:
    save(scene(1), source / "ill" / "copy.bmp")
    taken = Imported(source, store / "a")
    assert "1 exact copies" in taken.said and "copy.bmp" in taken.said
    assert len(taken.records()) == 9
    dropped = Imported(source, store / "b", Choices(drop_duplicates=True))
    assert len(dropped.records()) == 8
    assert "left out" in dropped.said
    assert "exact copies" not in Imported(table(source, "file,label", *["a"] * 8), store).said


def test_a_copy_of_another_class_or_person_is_never_dropped_silently(source, store) -> None:
    save(scene(1), source / "well" / "copy.png")
    assert "under another class or person" in Imported(source, store / "a").said
    with pytest.raises(DataError, match="another class or person"):
        Imported(source, store / "b", Choices(drop_duplicates=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda x: x.transpose(Image.Transpose.ROTATE_90),
        lambda x: x.transpose(Image.Transpose.TRANSVERSE),
        lambda x: x.point(lambda v: int(0.8 * v + 10)),
        lambda x: x.resize((96, 96)),
    ],
)
def test_near_copies_are_reported_with_an_example(tmp_path, store, change) -> None:
    big = [scene(i).resize((64, 64), Image.Resampling.BICUBIC) for i in range(4)]
    for i, image in enumerate(big):
        save(image, tmp_path / "f" / "a" / f"{i}.png")
    assert "look like" not in Imported(tmp_path / "f", store / "a", size=64).said
    save(change(big[2]), tmp_path / "f" / "a" / "near.png")
    said = Imported(tmp_path / "f", store / "b", size=64).said
    assert "1 images look like another one, such as" in said
    assert "near.png" in said and "2.png" in said


def test_near_copies_of_one_person_are_no_matter(source, store) -> None:
    save(scene(0).point(lambda v: int(0.8 * v)), source / "near.png")
    path = table(source, "file,label,person", *FOUR)
    path.write_text(path.read_text() + "near.png,well,p0\n")
    assert "look like" not in Imported(path, store / "a").said
    path.write_text(path.read_text().replace("near.png,well,p0", "near.png,well,p9"))
    assert "look like" in Imported(path, store / "b").said


# -- splits


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Training", "Testing"), ("train", "test", "val")]
)
def test_folders_of_splits_are_no_classes(tmp_path, store, names: tuple[str, ...]) -> None:
    for k, split in enumerate(names):
        for i in range(4):
            save(
                scene(10 * k + i),
                tmp_path / "f" / split / ("ill" if i % 2 else "well") / f"{i}.png",
            )
    taken = Imported(tmp_path / "f", store, test_fraction=None)
    assert taken.records().manifest.classes == ("ill", "well")
    assert len(taken.records("test")) == 4
    assert len(taken.records()) == 4 * (len(names) - 1)
    assert "taken as splits" in taken.said
    with pytest.raises(ConfigError, match="has a test split"):
        Imported(tmp_path / "f", store / "b", test_fraction=0.2)


def test_splits_beside_classes_or_inside_them_are_refused(source, store) -> None:
    for split in ("train", "test"):
        save(scene(1), source / "ill" / split / "1.png")
    with pytest.raises(DataError, match="ill holds splits"):
        Imported(source, store)
    for split in ("train", "test"):
        save(scene(1), source / split / "ill" / "1.png")
    with pytest.raises(DataError, match="and other folders"):
        Imported(source, store)


def test_a_class_may_be_called_train(source, store) -> None:
    save(scene(9), source / "train" / "9.png")
    assert "train" in Imported(source, store).records().manifest.classes


def test_a_separate_test_set(source, store, tmp_path: Path) -> None:
    for i in range(2):
        save(scene(40 + i), tmp_path / "t" / ("ill" if i else "well") / f"{i}.png")
    taken = Imported(source, store, test=tmp_path / "t")
    assert (len(taken.records()), len(taken.records("test"))) == (8, 2)
    assert taken.records("test").labels.tolist() == [0, 1]


@twin(
    "persons may be on both sides of a split",
    "dppm_model.records.importers:check_sides",
    lambda _: lambda _listing: None,
)
def test_a_person_on_both_sides_is_refused(source, store) -> None:
    rows = [f"{end},{'test' if i > 5 else 'train'}" for i, end in enumerate(FOUR)]
    with pytest.raises(DataError, match="2 persons have training and test images, such as p2"):
        Imported(table(source, "file,label,person,split", *rows), store, test_fraction=None)


def test_an_image_on_both_sides_is_refused(source, store) -> None:
    path = table(source, "file,label", *["a"] * 8)
    with pytest.raises(DataError, match=r"0\.png is in test, and in train"):
        Imported(path, store, test=path)


def test_a_split_column_is_obeyed(source, store) -> None:
    rows = [f"{end.split(',')[0]},{'Test' if i > 5 else 'val'}" for i, end in enumerate(FOUR)]
    taken = Imported(table(source, "file,label,Split", *rows), store, test_fraction=None)
    assert (len(taken.records()), len(taken.records("test"))) == (6, 2)
    rows[0] = "well,later"
    with pytest.raises(DataError, match="row 2: the split is 'later'"):
        Imported(table(source, "file,label,split", *rows), store / "b", test_fraction=None)


# -- classes


def test_the_held_out_tenth_never_takes_a_class(source, store) -> None:
    save(scene(9), source / "rare" / "9.png")
    taken = Imported(source, store, test_fraction=0.9)
    assert {*taken.records().labels.tolist()} == {0, 1, 2}
    assert {*taken.records("test").labels.tolist()} == {0, 2}


def test_a_class_of_test_images_only_is_refused(source, store, tmp_path: Path) -> None:
    save(scene(50), tmp_path / "t" / "new" / "0.png")
    with pytest.raises(DataError, match="no training image, such as 'new'"):
        Imported(source, store, test=tmp_path / "t")


def test_class_names_that_are_not_utf8_are_refused(source, store) -> None:
    save(scene(9), source / os.fsdecode(b"\xe4") / "0.png")
    with pytest.raises(DataError, match="is not UTF-8"):
        Imported(source, store)


# -- grey in colour


def test_grey_pictures_in_colour_files_stay_grey(source, store) -> None:
    for i in range(20):
        save(scene(i).convert("RGB"), source / "ill" / f"g{i}.jpg", quality=95)
    save(scene(1), source / "ill" / "grey.gif")
    save(scene(2).convert("P"), source / "ill" / "palette.gif")
    taken = Imported(source, store / "a")
    assert taken.records().manifest.shape == (1, SIZE, SIZE)
    assert "stored in colour without having any: kept as grey" in taken.said
    save(scene(3, colour=True), source / "ill" / "c.png")
    taken = Imported(source, store / "b")
    assert taken.records().manifest.shape == (3, SIZE, SIZE)
    assert "30 of 31 images are grey, and become RGB" in taken.said


# -- tables among class folders


def test_a_csv_among_class_folders_is_said_first_and_loudly(source, store) -> None:
    (source / "list.csv").write_text("file,label\n")
    (source / "ill" / "notes.csv").write_text("a;b\n")
    said = Imported(source, store).said
    assert said.startswith("ATTENTION: ") or "ATTENTION: " in said
    assert f"{source / 'list.csv'} lies among the class folders and is not used" in said
    assert f"{source / 'ill' / 'notes.csv'} lies among" in said


def test_a_csv_of_persons_among_class_folders_needs_a_decision(source, store) -> None:
    path = table(source, "file,label,Patient ID", *FOUR)
    with pytest.raises(DataError, match=r"list\.csv has a column of persons") as refusal:
        Imported(source, store)
    assert "--no-person" in refusal.value.hint
    assert not store.exists()
    assert Imported(source, store / "a", Choices(no_person=True)).records().persons is None
    assert Imported(path, store / "b").persons() == 4
