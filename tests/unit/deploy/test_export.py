"""Exported images open in the libraries that people use, and say what they are."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pydicom
import pytest
import SimpleITK
import webdataset
from PIL import Image

from deploy.cli import COMMANDS
from deploy.export import command
from deploy.export.command import FORMATS
from deploy.export.dicom import dicom_file
from deploy.export.synthetic import SyntheticImage, SyntheticSet
from dppm_model.config import read_config
from dppm_model.errors import ConfigError, RunFolderError, StorageError
from dppm_model.records.sources import load
from dppm_model.run import Run
from sampler.images import load_images, manifest_of
from tests.conftest import run
from tests.support.mutations import twin

unmarked = twin(
    "images do not say that they are synthetic",
    "deploy.export.synthetic:SyntheticSet.facts",
    lambda old: lambda self, image: {**old(self, image), "synthetic": False},
)
shifted = twin(
    "images get the facts of their neighbours",
    "deploy.export.synthetic:SyntheticSet.facts",
    lambda old: lambda self, image: old(self, replace(image, index=image.index + 1)),
)


def unchecked(cls: type[SyntheticSet], run: Run) -> SyntheticSet:
    manifest = manifest_of(run.samples)
    return cls(run, run.plan(), read_config(run.config), run.read_json(run.privacy), manifest)


def exported(finished: Path, form: str, tmp_path: Path) -> Path:
    assert run("export", finished, "--format", form, "--out", tmp_path / form) == 0
    sheet = (tmp_path / form / "DATASHEET.md").read_text()
    assert "**Every image here is synthetic**" in sheet
    return tmp_path / form


def expected(finished: Path) -> dict[str, dict]:
    """The facts of each image, and its pixels (C, H, W), by name."""
    run = Run(finished)
    images, labels = load_images(run.samples)
    privacy, manifest = run.read_json(run.privacy), run.read_json(run.samples / "manifest.json")
    found, counts = {}, [0, 0]
    for pixels, label in zip(images, labels.tolist(), strict=True):
        found[f"{label:03d}-{counts[label]:06d}"] = {
            "pixels": pixels,
            "synthetic": True,
            "class": "ab"[label],
            "class_index": label,
            "index": counts[label],
            "seed": 0,
            "model": manifest["model"],
            "epsilon": privacy["epsilon_secure_sum"],
            "delta": 1e-5,
            "unit": "record",
            "view": "secure_sum",
        }
        counts[label] += 1
    assert counts == [20, 20]
    return found


def check_png(path: Path, one: dict) -> None:
    with Image.open(path) as image:
        assert (np.asarray(image) == one["pixels"][0]).all()
        assert image.text["Description"].startswith("Synthetic")
        assert image.text["synthetic"] == "true"
        for key in ("class", "class_index", "index", "seed", "model", "epsilon", "unit", "view"):
            assert image.text[key] == str(one[key])


@unmarked
@shifted
def test_a_folder_of_each_class(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "folder", tmp_path)
    wanted = expected(finished)
    found = {path.stem: path for path in folder.glob("[ab]/*.png")}
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        assert path.parent.name == wanted[name]["class"]
        check_png(path, wanted[name])


@unmarked
@shifted
def test_a_csv_with_pictures(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "csv", tmp_path)
    wanted = expected(finished)
    table = pandas.read_csv(folder / "images.csv")
    assert len(table) == 40
    for row in table.to_dict("records"):
        one = wanted[Path(row["file"]).stem]
        assert {key: row[key] for key in one if key != "pixels"} == {
            key: value for key, value in one.items() if key != "pixels"
        }
        check_png(folder / row["file"], one)


@unmarked
@shifted
def test_webdataset_reads_the_archives(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "webdataset", tmp_path)
    wanted = expected(finished)
    (archive,) = folder.glob("*.tar")
    opened = webdataset.WebDataset(str(archive), shardshuffle=False).decode("l8")
    found = {one["__key__"]: one for one in opened}
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        facts = dict(wanted[name])
        assert (one["png"] == facts.pop("pixels")[0]).all()
        assert one["cls"] == facts["class_index"]
        assert {key: one["json"][key] for key in facts} == facts


@unmarked
@shifted
def test_pandas_reads_the_parquet(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "parquet", tmp_path)
    wanted = expected(finished)
    table = pandas.read_parquet(folder / "data")
    assert len(table) == 40
    for row in table.to_dict("records"):
        one = wanted[row["image"]["path"].removesuffix(".png")]
        assert row["label"] == one["class_index"]
        assert all(row[key] == value for key, value in one.items() if key != "pixels")
        (tmp_path / "one.png").write_bytes(row["image"]["bytes"])
        check_png(tmp_path / "one.png", one)


DATASETS = """
import json, sys
import datasets
folder, cache = sys.argv[1:]
opened = datasets.load_dataset(folder, split="train", cache_dir=cache)
names = opened.features["label"].names
rows = [[names[one["label"]], one["image"].size, one["class"]] for one in opened]
print(json.dumps([names, rows]))
"""


def test_datasets_reads_the_parquet(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "parquet", tmp_path)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", DATASETS, folder, tmp_path / "cache"],
        env=offline,
        capture_output=True,
        text=True,
        check=True,
    )
    names, rows = json.loads(told.stdout.splitlines()[-1])
    assert names == ["a", "b"]
    assert sorted(rows) == [["a", [8, 8], "a"]] * 20 + [["b", [8, 8], "b"]] * 20


def test_numpy_reads_the_npz(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "npz", tmp_path)
    images, labels = load_images(Run(finished).samples)
    with np.load(folder / "synthetic.npz") as file:
        assert (file["train_images"] == images[:, 0]).all()
        assert (file["train_labels"][:, 0] == labels).all()
        assert sorted(file["index"]) == sorted([*range(20)] * 2)
        facts = json.loads(str(file["facts"]))
    assert facts["synthetic"] is True
    assert facts["view"] == "secure_sum"
    assert facts["model"] == next(iter(expected(finished).values()))["model"]


@unmarked
@shifted
@twin(
    "all images are of one patient",
    "deploy.export.synthetic:SyntheticImage.name",
    lambda old: property(lambda self: "000-000000"),
)
def test_two_readers_open_the_dicom(finished: Path, tmp_path: Path) -> None:
    folder = exported(finished, "dicom", tmp_path)
    wanted = expected(finished)
    found = {path.stem: path for path in folder.glob("[ab]/*.dcm")}
    assert found.keys() == wanted.keys()
    opened = {name: pydicom.dcmread(path) for name, path in found.items()}
    for name, data in opened.items():
        one = wanted[name]
        assert (data.pixel_array == one["pixels"][0]).all()
        other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(found[name])))
        assert (other[0] == one["pixels"][0]).all()
        assert data.SOPClassUID.name == "Secondary Capture Image Storage"
        assert [*data.ImageType] == ["DERIVED", "SECONDARY"]
        assert (data.SyntheticData, data.ConversionType) == ("YES", "SYN")
        assert data.PatientIdentityRemoved == "YES"
        assert "epsilon 7.9" in data.DeidentificationMethod
        assert data.PatientID.startswith("SYNTHETIC-")
        assert data.DerivationDescription.startswith("Synthetic")
        facts = json.loads(data.ImageComments)
        assert all(facts[key] == value for key, value in one.items() if key != "pixels")
    for level in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert len({data[level].value for data in opened.values()}) == 40
    uids = [d[k].value for d in opened.values() for k in ("StudyInstanceUID", "SOPInstanceUID")]
    assert all(uid.is_valid and len(uid) <= 64 for uid in uids)
    assert run("export", finished, "--format", "dicom", "--out", tmp_path / "again") == 0
    for path in (tmp_path / "again").glob("*/*.dcm"):  # nothing depends on the time or the machine
        assert path.read_bytes() == found[path.stem].read_bytes()


def test_dicom_in_colour_of_odd_size_and_with_names_of_any_script(
    finished: Path, tmp_path: Path
) -> None:
    images = SyntheticSet.of(Run(finished))
    facts = images.config.facts.replace(classes=["a\\b", "Übergröße 影像"])
    images = replace(images, config=images.config.replace(facts=facts))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.uint8)
    for label, said in enumerate(("Synthetic: a/b", "Synthetic: Übergröße 影像")):
        path = tmp_path / f"{label}.dcm"
        path.write_bytes(dicom_file(images, SyntheticImage(pixels, label, 0)))
        data = pydicom.dcmread(path)
        assert data.SeriesDescription == said
        assert json.loads(data.ImageComments)["class"] == images.config.class_names[label]
        assert (data.pixel_array == np.moveaxis(pixels, 0, -1)).all()
        other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        assert (other[0] == np.moveaxis(pixels, 0, -1)).all()
    unbounded = replace(images, privacy={**images.privacy, "epsilon_secure_sum": None})
    (tmp_path / "free.dcm").write_bytes(dicom_file(unbounded, SyntheticImage(pixels, 0, 0)))
    data = pydicom.dcmread(tmp_path / "free.dcm")
    assert data.PatientIdentityRemoved == "NO"
    assert "DeidentificationMethod" not in data


@pytest.mark.parametrize("form", ["folder", "csv", "npz"])
def test_what_was_exported_can_be_imported(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = exported(finished, form, tmp_path)
    source = {"folder": folder, "csv": folder / "images.csv", "npz": folder / "synthetic.npz"}[form]
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    assert run("data", "import", source, "--name", "back") == 0
    splits = [load("back", split) for split in ("train", "test")]
    images, _ = load_images(Run(finished).samples)
    back = np.concatenate([records.images for records in splits])
    assert sorted(map(bytes, back)) == sorted(map(bytes, images))
    if form != "npz":
        assert splits[0].manifest.classes == ("a", "b")


def test_the_datasheet_says_what_from_whom_and_what_is_left_to_say(
    finished: Path, tmp_path: Path
) -> None:
    sheet = (exported(finished, "folder", tmp_path) / "DATASHEET.md").read_text()
    privacy = Run(finished).read_json(Run(finished).privacy)
    assert f"{privacy['epsilon_secure_sum']:.2f}"[:3] in sheet
    for said in (
        *("40, 20 of each of 2 classes", "trained on 600 records", "“tiny”", "secure_sum"),
        *("| released by | _to be filled in_ |", "## Licence", "## How to cite", "3, virtual"),
        *(privacy["plan"], next(iter(expected(finished).values()))["model"]),
        "single records: a person with several",
    ):
        assert said in sheet


@twin(
    "what is in the target is replaced",
    "deploy.export.command:_refuse_taken",
    lambda _: lambda target: None,
)
def test_a_target_that_holds_anything_is_left_alone(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    arguments = ("export", finished, "--format", "folder", "--out", target)
    assert run(*arguments) == 0  # an empty folder
    assert run(*arguments) == ConfigError.exit_code  # not any more
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path / "file", tmp_path):
        before = sorted(path.name for path in tmp_path.iterdir())
        assert run(*arguments[:-1], taken) == ConfigError.exit_code
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"
    assert run("export", finished, "--format", "npz") == 0
    assert (finished / "export" / "npz" / "synthetic.npz").is_file()


def test_nothing_is_left_of_an_export_that_fails(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(made: Path, images: SyntheticSet):
        yield from list(FORMATS["folder"].write(made, images))[:5]
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(command.FORMATS, "csv", replace(FORMATS["csv"], write=full))
    code = run("export", finished, "--format", "csv", "--out", tmp_path / "x" / "y")
    assert code == StorageError.exit_code
    assert [*(tmp_path / "x").iterdir()] == []


@pytest.mark.parametrize(("form", "library"), [("dicom", "pydicom"), ("parquet", "pyarrow")])
def test_a_missing_library_is_refused_with_the_line_to_type(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
    library: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    code = run("export", finished, "--format", form, "--out", tmp_path / "o")
    assert code == ConfigError.exit_code
    assert f"pip install 'dppm[{form}]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "o").exists()


@twin(
    "images of another model are taken for the run's",
    "deploy.export.synthetic:SyntheticSet.of",
    lambda _: classmethod(unchecked),
)
def test_only_whole_images_of_the_runs_own_model_are_exported(
    finished: Path, tmp_path: Path
) -> None:
    shard = next((finished / "samples" / "shards").iterdir())
    content = shard.read_bytes()
    for fault in (content[:-1], content[:200] + b"x" + content[201:]):
        shard.write_bytes(fault)
        code = run("export", finished, "--format", "folder", "--out", tmp_path / "o")
        assert code == RunFolderError.exit_code
    shard.write_bytes(content)
    model = finished / "model.safetensors"
    model.write_bytes(model.read_bytes() + b" ")
    code = run("export", finished, "--format", "folder", "--out", tmp_path / "o")
    assert code == RunFolderError.exit_code
    assert not (tmp_path / "o").exists()


def test_names_of_classes_that_no_folder_may_have(finished: Path) -> None:
    images = SyntheticSet.of(Run(finished))
    names = ["../up", ".hidden", "A", "a", "Übergröße", "x" * 200, "c:d"]
    config = images.config.replace(facts=images.config.facts.replace(classes=names))
    folders = replace(images, config=config).folders
    assert folders[4] == "Übergröße"
    assert [*folders[:4], *folders[5:]] == [f"class-{i:03d}" for i in (0, 1, 2, 3, 5, 6)]


def test_the_command_names_every_format() -> None:
    (found,) = (c for c in COMMANDS if c.path == "export")
    (form,) = (p for p in found.params if p.name == "form")
    assert list(form.type.choices) == list(FORMATS)
