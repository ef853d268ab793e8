"""Pictures are decoded once, few at a time, and their pixels are those that were read."""

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dppm_model.errors import DataError
from dppm_model.records import importers
from dppm_model.records.importers import import_dataset
from dppm_model.records.pictures import ArrayPicture, FilePicture
from dppm_model.records.shards import open_records
from dppm_model.records.spool import Spool
from dppm_model.records.writing import verify
from tests.support.mutations import twin
from tests.support.scenes import scene


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Forty pictures of two classes; a quarter is in colour, a quarter grey but stored as RGB."""
    for i in range(40):
        folder = tmp_path / "scans" / ("ill" if i % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        image = scene(i, 20, colour=i % 4 == 0)
        (image.convert("RGB") if i % 4 == 1 else image).save(folder / f"{i:02d}.png")
    return tmp_path / "scans"


@twin(
    "pictures are kept upside down",
    "dppm_model.records.spool:Spool.add",
    lambda whole: lambda self, picture, pixels: whole(self, picture, pixels[..., ::-1, :]),
)
@pytest.mark.parametrize("size", [None, 8])
def test_what_is_stored_is_what_pillow_reads(source: Path, tmp_path: Path, size) -> None:
    path = import_dataset(source, "x", root=tmp_path / "store", size=size, test_fraction=0)
    records = open_records(path / "train")
    verify(path / "train")
    for file, stored in zip(sorted(source.rglob("*.png")), records.images, strict=True):
        with Image.open(file) as image:
            wanted = image.convert("RGB")
            if size is not None:
                wanted = ImageOps.fit(wanted, (size, size), Image.Resampling.LANCZOS)
            assert (np.moveaxis(stored, 0, -1) == np.asarray(wanted)).all()


def test_each_picture_is_decoded_once(source: Path, tmp_path: Path, monkeypatch) -> None:
    opened: list[Path] = []
    whole = FilePicture.open
    monkeypatch.setattr(FilePicture, "open", lambda self: opened.append(self.path) or whole(self))
    import_dataset(source, "x", root=tmp_path / "store")
    assert len(opened) == len({*opened}) == 40


def test_few_pictures_wait_at_a_time() -> None:
    begun: list[int] = []
    results = importers._in_order(lambda i: begun.append(i) or i, iter(range(1000)))
    cores = importers.os.cpu_count() or 1
    for done in range(100):
        assert next(results) == done
        assert len(begun) <= done + 2 * cores + 1
    assert [*results] == [*range(100, 1000)]


def test_nothing_is_left_beside_the_store(source: Path, tmp_path: Path) -> None:
    import_dataset(source, "x", root=tmp_path / "store")
    (source / "ill" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        import_dataset(source, "y", root=tmp_path / "store")
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["x"]
    assert {p.name for p in tmp_path.iterdir()} == {"store", "scans"}


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    class Full:
        def tell(self) -> int:
            return 0

        def write(self, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    with Spool(tmp_path) as spool:
        spool._file.close()
        spool._file = Full()  # type: ignore[assignment]
        picture = ArrayPicture("a", np.zeros((4, 4), np.uint8))
        with pytest.raises(DataError, match="no room for the pixels") as refusal:
            spool.add(picture, np.zeros((1, 4, 4), np.uint8))
        assert "DPPM_DATA" in refusal.value.hint


def test_the_first_picture_of_another_size_ends_it(
    source: Path, tmp_path: Path, monkeypatch
) -> None:
    scene(1, 21).save(source / "ill" / "00.png")
    with pytest.raises(DataError, match=r"01\.png is 20x20 pixels, the first image 21x21"):
        import_dataset(source, "x", root=tmp_path / "store")
