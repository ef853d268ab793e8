"""`dppm export RUN --format NAME`: the images of a run in a format of others, with a datasheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.export.datasheet import datasheet
from deploy.export.dicom import write_dicom
from deploy.export.files import write_csv, write_folder, write_npz, write_webdataset
from deploy.export.parquet import write_parquet
from deploy.export.synthetic import SyntheticSet
from deploy.sampling import trained
from deploy.show import console, print_json, progress
from dppm_model.errors import ConfigError
from dppm_model.files import write_bytes
from dppm_model.records.writing import replacing

_IN_PNG = "PNG file names this model, its ε, its seed, its class and its place in text chunks"


@dataclass(frozen=True)
class Format:
    """A way to write images.

    ``write`` writes them into a new folder, and yields how many are done. ``layout`` and
    ``carrier`` go into the datasheet: where the images are, and where each has its facts.
    """

    write: Callable[[Path, SyntheticSet], Iterator[int]]
    layout: str
    carrier: str
    folders: bool = False  # one for each class


FORMATS = {
    "folder": Format(write_folder, "a folder of PNG files for each class", _IN_PNG, folders=True),
    "csv": Format(
        write_csv,
        "`images.csv` names the PNG files in `images/`, with class and facts",
        f"{_IN_PNG}, and so does its line of `images.csv`",
        folders=True,
    ),
    "parquet": Format(
        write_parquet,
        "`data/*.parquet`, with columns `image` (PNG), `label` and the facts",
        f"{_IN_PNG}, and so does its row",
    ),
    "webdataset": Format(
        write_webdataset,
        "`synthetic-*.tar`, in which each image has a `.png`, a `.cls` and a `.json`",
        f"{_IN_PNG}, and so does its `.json`",
    ),
    "npz": Format(
        write_npz,
        "`synthetic.npz`: `train_images`, `train_labels` (as MedMNIST), `index`, `class_names`",
        "array file names this model, its ε and its seed in `facts`",
    ),
    "dicom": Format(
        write_dicom,
        "a folder of DICOM files (Secondary Capture) for each class",
        "DICOM file is marked `SyntheticData`, as derived, and as of no patient (`PatientID` "
        "begins with SYNTHETIC); `ImageComments` has the facts as JSON",
        folders=True,
    ),
}


def export(run: Path, form: str, out: Path | None, *, as_json: bool) -> None:
    """Export the images of a sampled run.

    Raises ConfigError if the target is there and not an empty folder, or a library is missing, and
    RunFolderError if the run has no finished images.
    """
    opened, chosen = trained(run, "export"), FORMATS[form]
    target = (out.expanduser() if out else opened.export / form).resolve()
    with opened.alone(), new_folder(target) as made, progress("exporting") as bar:
        images = SyntheticSet.of(opened)
        sheet = datasheet(images, form, chosen.layout, chosen.carrier, folders=chosen.folders)
        for done in chosen.write(made, images):
            bar(f"{done} of {len(images)} images", done / len(images))
        write_bytes(made / "DATASHEET.md", sheet.lstrip().encode())
    console.print(f"{len(images)} images in {target}", markup=False, soft_wrap=True)
    console.print("Fill in what DATASHEET.md leaves open.")
    if as_json:
        print_json({"folder": str(target), "format": form, "images": len(images)})


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``target`` when the block ends, and is gone if it fails.

    Raises ConfigError if anything but an empty folder is there.
    """
    _refuse_taken(target)
    with replacing(target) as made:
        _refuse_taken(target)  # perhaps by another command that it waited for
        made.mkdir()
        yield made


def _refuse_taken(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(
            f"{target} exists and is not an empty folder.", "Remove it, or name another with --out."
        )
