"""DICOM from hospitals: the right patients, the right greys, and no identity in the store."""

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dppm_model.errors import ConfigError, DataError
from dppm_model.records import dicom
from dppm_model.records.corner_text import has_text
from dppm_model.records.listing import Choices
from dppm_model.records.picture_files import pictures_in
from dppm_model.records.shards import Records, open_records
from dppm_model.records.site_key import SiteKey
from dppm_model.records.window import Window
from tests.support.dicom_files import dicom_file
from tests.support.imports import imported
from tests.support.mutations import twin

SIZE = 16


def shipped(name: str) -> Path:
    """A file that pydicom brings."""
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def noise(number: int, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(number).integers(0, 200, (SIZE, SIZE)).astype(dtype)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve images of six patients, in two classes, under names that say nothing."""
    for i in range(12):
        kind = "ill" if i % 2 else "well"
        dicom_file(tmp_path / "scans" / kind / f"IM{i:04d}", noise(i), f"Meier-{i // 2}")
    return tmp_path / "scans"


class Imported:
    """What an import took, and what it said."""

    def __init__(self, path: Path, store: Path, name: str = "x", **options: object):
        fields = Choices.__dataclass_fields__
        choices = Choices(**{k: v for k, v in options.items() if k in fields})
        rest = {"test_fraction": 0.0} | {k: v for k, v in options.items() if k not in fields}
        self.path, self.said = imported(path, store, choices, name=name, **rest)

    def records(self, split: str = "train") -> Records:
        return open_records(self.path / split)


def opened(path: Path, page: int = 0, **choices: object) -> Image.Image:
    key = SiteKey(path.parent / "nowhere")
    return pictures_in(path, Choices(pages=True, **choices), key)[page].open()


def pixels(path: Path, page: int = 0, **choices: object) -> np.ndarray:
    return np.asarray(opened(path, page, **choices))


# -- what is DICOM


def test_dicom_is_recognised_by_its_content(source, store) -> None:
    shutil.move(source / "ill" / "IM0001", source / "ill" / "looks.png")
    shutil.move(source / "ill" / "IM0003", source / "ill" / "IM0003.dcm")
    assert len(Imported(source, store).records()) == 12
    (source / "ill" / "text.dcm").write_text("no DICOM at all")
    with pytest.raises(DataError, match=r"text\.dcm is not DICOM"):
        Imported(source, store, "y")


def test_a_file_without_a_preamble_is_dicom(source, store) -> None:
    path = source / "ill" / "IM0001"
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # of the header's own header
    path.write_bytes(content[144 + length :])
    assert dicom.is_dicom(path)
    assert len(Imported(source, store).records()) == 12


def test_files_without_an_image_are_passed_over_and_counted(source, store) -> None:
    for name in ("test-SR.dcm", "rtplan.dcm", "rtdose.dcm", "liver_1frame.dcm"):
        shutil.copy(shipped(name), source / "ill" / name)
    taken = Imported(source, store)
    assert len(taken.records()) == 12
    assert "4 DICOM files without an image" in taken.said


def test_damaged_files_are_refused_by_name(source, store) -> None:
    shutil.copy(shipped("MR_truncated.dcm"), source / "ill" / "cut.dcm")
    with pytest.raises(DataError, match=r"cut\.dcm cannot be decoded from Explicit VR"):
        Imported(source, store, size=SIZE, no_person=True)
    assert not store.exists()


def test_a_codec_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="JPEG Extended") as refusal:
        opened(shipped("JPGExtended.dcm"))
    assert "Install pylibjpeg-libjpeg (GPL)" in refusal.value.hint


def test_without_pydicom_the_line_to_type_is_said(source, store, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    dicom._pydicom.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'dppm\[dicom\]'"):
        Imported(source, store)
    dicom._pydicom.cache_clear()


# -- whose an image is


@twin(
    "a patient's ID is their pseudonym",
    "dppm_model.records.site_key:SiteKey.pseudonym",
    lambda _: lambda _self, text: text,
)
def test_patients_are_persons_and_their_ids_are_written_nowhere(source, store, tmp_path) -> None:
    taken = Imported(source, store)
    assert len({*taken.records().persons.tolist()}) == 6
    assert "PatientID is taken as the person" in taken.said
    assert "6 patients" in taken.said
    for file in (f for f in store.rglob("*") if f.is_file()):
        assert b"Meier" not in file.read_bytes(), file
    key = SiteKey(tmp_path / "store")
    patient = pictures_in(source / "ill" / "IM0001", Choices(), key)[0].origin.patient
    assert len(patient) == 64 and "Meier" not in patient


def test_the_key_is_the_sites_own_and_stays(source, store) -> None:
    first = Imported(source, store).records()
    key = store / "person.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Imported(source, store, "y").records().manifest.digest == first.manifest.digest
    key.chmod(0o644)
    with pytest.raises(DataError, match="can be read by others") as refusal:
        Imported(source, store, "z")
    assert "chmod 600" in refusal.value.hint
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(DataError, match=r"person\.key has 5 bytes"):
        Imported(source, store, "z")


def test_pictures_without_dicom_leave_no_key(tmp_path, store) -> None:
    for i in range(4):
        path = tmp_path / "f" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i)).save(path)
    Imported(tmp_path / "f", store)
    assert not (store / "person.key").exists()


@pytest.mark.parametrize("patient", [None, "", " ", "N/A", "ANONYMOUS", "Unknown"])
def test_an_image_without_a_patient_is_refused_with_the_cure(source, store, patient) -> None:
    dicom_file(source / "ill" / "nobody", noise(50), patient)
    with pytest.raises(DataError, match="1 of 13 images name no patient") as refusal:
        Imported(source, store)
    assert "--no-person" in refusal.value.hint
    assert not store.exists()
    taken = Imported(source, store, no_person=True)
    assert taken.records().persons is None
    assert "ε protects records, not persons" in taken.said


def test_images_of_patients_beside_images_of_nobody_are_refused(source, store) -> None:
    Image.fromarray(noise(50)).save(source / "ill" / "x.png")
    with pytest.raises(DataError, match=r"1 of 13 images name no patient.*x\.png"):
        Imported(source, store)


@pytest.mark.parametrize("pair", [("0007", "7"), ("Meier", "MEIER"), ("a  b", "a b")])
def test_two_spellings_of_a_patient_are_refused_without_saying_them(source, store, pair) -> None:
    for number, patient in enumerate(pair):
        dicom_file(source / "ill" / f"two{number}", noise(60 + number), patient)
    with pytest.raises(DataError, match="two spellings of one PatientID") as refusal:
        Imported(source, store)
    assert "two0" in refusal.value.message
    assert not any(f"'{patient}'" in refusal.value.message for patient in pair)
    assert len({*Imported(source, store, as_written=True).records().persons.tolist()}) == 8


def test_two_patients_in_a_study_are_refused(source, store) -> None:
    for number in range(2):
        dicom_file(source / "ill" / f"s{number}", noise(70 + number), f"q{number}",
                   StudyInstanceUID="1.2.3")  # fmt: skip
    with pytest.raises(DataError, match="two PatientIDs in one study"):
        Imported(source, store)


@twin(
    "images of a study are held out one by one",
    "dppm_model.records.listing:Listing.studies",
    lambda _: None,
)
def test_without_persons_whole_studies_are_held_out(tmp_path, store) -> None:
    for i in range(40):
        dicom_file(tmp_path / "f" / "ab"[i // 4 % 2] / f"{i}", np.full((SIZE, SIZE), i, "u1"),
                   None, StudyInstanceUID=f"1.2.{i // 4}")  # fmt: skip
    taken = Imported(tmp_path / "f", store, no_person=True, test_fraction=0.4)
    numbers = [{*taken.records(side).images[:, 0, 0, 0].tolist()} for side in ("train", "test")]
    studies = [{number // 4 for number in side} for side in numbers]
    assert len(numbers[1]) == 16
    assert not studies[0] & studies[1]


def test_a_patient_on_both_sides_is_refused_by_file(source, store, tmp_path) -> None:
    for kind in ("ill", "well"):
        dicom_file(tmp_path / "t" / kind / "0", noise(80 + len(kind)), "Meier-3")
    with pytest.raises(DataError, match="1 persons have training and test images") as refusal:
        Imported(source, store, test=tmp_path / "t", test_fraction=None)
    assert "Meier" not in refusal.value.message


def test_one_image_in_two_files_is_refused(source, store) -> None:
    uid = dicom_file(source / "ill" / "a1", noise(90), "q")
    dicom_file(source / "ill" / "a2", noise(91), "q", SOPInstanceUID=uid)
    with pytest.raises(DataError, match="their SOPInstanceUID is one"):
        Imported(source, store)
    assert len(Imported(source, store, as_written=True).records()) == 14


# -- labels by a CSV


@pytest.fixture
def flat(tmp_path: Path) -> tuple[Path, list[str]]:
    """Eight images of four patients in folders that are no classes, and their UIDs."""
    folder = tmp_path / "pacs"
    return folder, [
        dicom_file(folder / f"st{i // 2}" / f"{i}", noise(i), f"Meier-{i // 2}") for i in range(8)
    ]


def labelled(path: Path, head: str, names: list[str], *more: str) -> Path:
    rows = [f"{name},{'ill' if i // 4 else 'well'}" for i, name in enumerate(names)]
    path.write_text("\n".join([head, *rows, *more]) + "\n")
    return path


@pytest.mark.parametrize("head", ["SOPInstanceUID,label", "sop_instance_uid,Label"])
def test_labels_by_instance(flat, store, tmp_path, head: str) -> None:
    folder, uids = flat
    table = labelled(tmp_path / "labels.csv", head, uids[1:])
    taken = Imported(folder, store, labels=table)
    assert taken.records().labels.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert np.array_equal(taken.records().images[0, 0], noise(1))
    assert len({*taken.records().persons.tolist()}) == 4
    assert "1 images that" in taken.said
    inside = Imported(shutil.copy(table, folder / "labels.csv"), store, "y")
    assert inside.records().manifest.digest == taken.records().manifest.digest


def test_labels_by_file_and_other_columns(flat, store, tmp_path) -> None:
    folder, _ = flat
    names = [f"st{i // 2}/{i},{i // 2}" for i in range(8)]
    table = labelled(tmp_path / "labels.csv", "file,StudyInstanceUID,label", names)
    taken = Imported(folder, store, labels=table)  # the patients are known: no decision is needed
    assert len({*taken.records().persons.tolist()}) == 4


def test_an_instance_that_is_missing_is_refused_by_row(flat, store, tmp_path) -> None:
    folder, uids = flat
    table = labelled(tmp_path / "labels.csv", "SOPInstanceUID,label", [*uids, "1.2.3"])
    with pytest.raises(DataError, match=r"row 10: no file in .* is the DICOM image"):
        Imported(folder, store, labels=table)


def test_a_csv_may_join_patients_but_not_split_one(flat, store, tmp_path) -> None:
    folder, uids = flat
    rows = [f"{uid},{'ab'[i // 4]},p{i // 4}" for i, uid in enumerate(uids)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["SOPInstanceUID,label,person", *rows]))
    assert len({*Imported(folder, store, labels=table).records().persons.tolist()}) == 2
    rows[1] = rows[1].replace(",p0", ",p9")
    table.write_text("\n".join(["SOPInstanceUID,label,person", *rows]))
    with pytest.raises(DataError, match="have one PatientID, and are two persons in the CSV"):
        Imported(folder, store, "y", labels=table)


def test_a_dicomdir_with_labels(store, tmp_path) -> None:
    medium = shutil.copytree(shipped("MR_small.dcm").parent / "dicomdirtests", tmp_path / "cd")
    with pytest.raises(DataError, match="DICOMDIR names no classes") as refusal:
        Imported(medium / "DICOMDIR", store)
    assert "--labels" in refusal.value.hint
    files = sorted(path for path in (medium / "77654033").rglob("*") if path.is_file())
    found = {path: uid for uid, path in dicom.instances_of(files).items()}
    rows = [f"{uid},{path.parent.name[:2]}" for path, uid in found.items()]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["SOPInstanceUID,label", *rows]))
    options = {"labels": table, "size": 32, "as_written": True}
    taken = Imported(medium / "DICOMDIR", store, **options)
    assert len(taken.records()) == len(files) == 7
    assert taken.records().manifest.classes == ("CR", "CT")
    files[0].unlink()
    with pytest.raises(DataError, match=f"{files[0].name} cannot be read"):
        Imported(medium / "DICOMDIR", store, "y", **options)


# -- greys and colours


RAMP = np.arange(SIZE * SIZE, dtype="i2").reshape(SIZE, SIZE) * 10 - 1000  # HU
WINDOWED = {"WindowCenter": 40, "WindowWidth": 400}


def linear(scan: np.ndarray, center: float, width: float) -> np.ndarray:
    """The standard's linear window, PS3.3 C.11.2.1.2.1, for 8 bits."""
    value = ((scan - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(value, 0, 255)).astype(np.uint8)


def test_the_files_window_is_used(tmp_path) -> None:
    dicom_file(tmp_path / "x", RAMP, **WINDOWED)
    expected = linear(RAMP, 40, 400)
    assert np.array_equal(pixels(tmp_path / "x"), expected)
    assert np.array_equal(pixels(tmp_path / "x", window=Window.of("file")), expected)


def test_a_given_window_is_used(tmp_path) -> None:
    dicom_file(tmp_path / "x", RAMP, **WINDOWED)
    found = pixels(tmp_path / "x", window=Window.of("-600,1500"))
    assert np.array_equal(found, linear(RAMP, -600, 1500))


def test_without_a_window_percentiles_are_stated_and_used(source, store, tmp_path) -> None:
    dicom_file(tmp_path / "x", RAMP)
    low, high = np.percentile(RAMP, [0.5, 99.5])
    expected = np.clip((RAMP - low) / (high - low), 0, 1) * 255
    assert abs(pixels(tmp_path / "x") - expected).max() <= 1
    with pytest.raises(DataError, match="has no window"):
        opened(tmp_path / "x", window=Window.of("file"))
    dicom_file(source / "ill" / "deep", RAMP)
    dicom_file(source / "ill" / "windowed", RAMP + 1, **WINDOWED)
    said = Imported(source, store).said
    assert "all of 8 bits (12)" in said
    assert "percentiles 0.5 to 99.5 of each image (1)" in said
    assert "40,400 of the file (1)" in said


@pytest.mark.parametrize("text", ["auto,", "1", "40,0", "a,b", "nan,5", "40,inf"])
def test_windows_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--window is"):
        Window.of(text)


@twin(
    "the scale of a scan is ignored",
    "pydicom.pixels.processing:apply_modality_lut",
    lambda _: lambda stored, _values: stored,
)
def test_rescale_and_twelve_bits(tmp_path) -> None:
    stored = (RAMP + 1000).astype("u2")
    dicom_file(tmp_path / "x", stored, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1000,
               **WINDOWED)  # fmt: skip
    assert np.array_equal(pixels(tmp_path / "x"), linear(RAMP, 40, 400))


@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
def test_tables(tmp_path, sequence: str) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 16])
    table.add_new("LUTData", "US", [min(2 * i, 255) * 257 for i in range(256)])
    table.ModalityLUTType = "US"
    stored = np.arange(SIZE * SIZE, dtype="u1").reshape(SIZE, SIZE)
    window = {} if sequence[0] == "V" else {"WindowCenter": 32768.5, "WindowWidth": 65536}
    dicom_file(tmp_path / "x", stored, **{sequence: [table]}, **window)
    expected = np.minimum(2 * stored.astype(int), 255)
    assert abs(pixels(tmp_path / "x") - expected).max() <= 1


def test_monochrome1_is_inverted(tmp_path) -> None:
    dicom_file(tmp_path / "x", RAMP, PhotometricInterpretation="MONOCHROME1", **WINDOWED)
    assert np.array_equal(pixels(tmp_path / "x"), 255 - linear(RAMP, 40, 400))


def test_padding_is_black_and_counts_for_no_percentile(tmp_path) -> None:
    padded = RAMP.copy()
    padded[:4] = -2000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = tmp_path / photometric
        dicom_file(path, padded, PhotometricInterpretation=photometric, PixelPaddingValue=-2000)
        assert not pixels(path)[:4].any()
        assert pixels(path)[4:].min() == 0 and pixels(path)[4:].max() == 255


def test_frames_have_windows_of_their_own(source, store, tmp_path) -> None:
    def group(name: str, **values: float) -> Dataset:
        item, outer = Dataset(), Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(outer, name, [item])
        return outer

    shared = group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1000)
    own = [group("FrameVOILUTSequence", WindowCenter=c, WindowWidth=400) for c in (40, 300)]
    stored = np.stack([RAMP + 1000, RAMP + 1000]).astype("u2")
    path = source / "ill" / "enhanced"
    dicom_file(path, stored, SharedFunctionalGroupsSequence=[shared],
               PerFrameFunctionalGroupsSequence=own)  # fmt: skip
    assert np.array_equal(pixels(path, 0), linear(RAMP, 40, 400))
    assert np.array_equal(pixels(path, 1), linear(RAMP, 300, 400))
    with pytest.raises(DataError, match="enhanced has 2 pages, or frames") as refusal:
        Imported(source, store)
    assert "--pages" in refusal.value.hint
    assert len(Imported(source, store, pages=True).records()) == 14


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit"),
        *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_padded"),
    ],
)
def test_every_encoding_of_one_scan_is_one_picture(name: str) -> None:
    assert np.array_equal(pixels(shipped(f"{name}.dcm")), pixels(shipped("MR_small.dcm")))


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", 0),  # lossless JPEG
        ("SC_rgb_gdcm_KY.dcm", 0),  # JPEG 2000
        ("SC_rgb_jpeg_dcmtk.dcm", 4),  # YBR_FULL, JPEG
        ("SC_ybr_full_422_uncompressed.dcm", 4),
    ],
)
def test_colours_are_rgb_whatever_they_were(name: str, distance: int) -> None:
    expected = pixels(shipped("SC_rgb_rle.dcm")).astype(int)
    found = opened(shipped(name))
    assert found.mode == "RGB"
    assert np.median(abs(np.asarray(found) - expected)) <= distance


def test_palettes_and_loops(tmp_path) -> None:
    assert opened(shipped("examples_palette.dcm")).mode == "RGB"
    assert pixels(shipped("examples_palette.dcm")).max() > 200
    frames = [pixels(shipped("examples_ybr_color.dcm"), page) for page in (0, 29)]
    assert frames[0].shape == (240, 320, 3)
    assert (frames[0] != frames[1]).any()


def test_deep_colours_are_refused() -> None:
    with pytest.raises(DataError, match="16 bits a channel in colour"):
        opened(shipped("SC_rgb_rle_16bit.dcm"))


# -- identities in the pixels


def test_overlays_localizers_and_annotations_are_reported_or_refused(source, store) -> None:
    dicom_file(source / "ill" / "sc", noise(1) + 1, BurnedInAnnotation="YES")
    dicom_file(
        source / "ill" / "scout", noise(2) + 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    shutil.copy(shipped("examples_overlay.dcm"), source / "ill" / "over")
    said = Imported(source, store, size=SIZE).said
    assert "1 images have overlays, which are not drawn, such as" in said and "over" in said
    assert "1 images are localizers" in said
    assert "1 images say that text is burned in" in said
    with pytest.raises(DataError, match="1 images say that text is burned in"):
        Imported(source, store, "y", size=SIZE, refuse_text=True)


def written(size: int, text: str, place: tuple[float, float], ink: int, ground: int) -> Image.Image:
    """A soft picture with a line of text."""
    rng = np.random.default_rng(size)
    soft = Image.fromarray(rng.integers(0, 60, (8, 8), dtype=np.uint8)).resize((size, size))
    image = soft.point(lambda v: v + ground)
    font = ImageFont.load_default(max(10, size // 40))
    at = (place[0] * size, place[1] * size)
    ImageDraw.Draw(image).text(at, text, fill=ink, font=font)
    return image


@pytest.mark.parametrize("size", [128, 512, 2048])
@pytest.mark.parametrize("place", [(0.02, 0.02), (0.6, 0.02), (0.02, 0.92), (0.6, 0.92)])
@pytest.mark.parametrize(("ink", "ground"), [(255, 20), (0, 150)])
def test_text_in_a_corner_is_seen(size: int, place, ink: int, ground: int) -> None:
    assert has_text(written(size, "MEIER ANNA 1957", place, ink, ground))
    assert not has_text(written(size, "", place, ink, ground))


def test_real_text_is_seen_and_scans_have_none() -> None:
    for name in ("examples_jpeg2k.dcm", "examples_palette.dcm"):  # ultrasound, with names of places
        assert has_text(opened(shipped(name)))
    for name in ("693_J2KI.dcm", "CT_small.dcm", "JPEG2000.dcm", "examples_overlay.dcm"):
        assert not has_text(opened(shipped(name)))


def test_text_is_reported_with_an_example_or_refused(source, store) -> None:
    image = np.asarray(written(256, "MEIER ANNA 1957", (0.02, 0.02), 255, 20))
    dicom_file(source / "well" / "named", image)
    said = Imported(source, store, size=SIZE).said
    assert "1 images may have text in a corner, such as" in said and "named" in said
    with pytest.raises(DataError, match="may have text in a corner") as refusal:
        Imported(source, store, "y", size=SIZE, refuse_text=True)
    assert "crop" in refusal.value.hint
