"""Formats that the standard library and Pillow write: folder, csv, webdataset, npz."""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from deploy.export.png import marked_png
from deploy.export.synthetic import SyntheticImage, SyntheticSet
from dppm_model.files import write_bytes

_PER_ARCHIVE = 10_000  # images of a tar file


def write_folder(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write ``CLASS/LABEL-INDEX.png``."""
    for done, image in enumerate(images, 1):
        content = marked_png(image.pixels, images.facts(image))
        write_bytes(made / folder_file(images, image, "png"), content, durable=False)
        yield done


def write_csv(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write ``images.csv``, with a line for each PNG file beside it, and all of its facts."""
    with (made / "images.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        for done, image in enumerate(images, 1):
            facts = images.facts(image)
            name = Path("images") / folder_file(images, image, "png")
            write_bytes(made / name, marked_png(image.pixels, facts), durable=False)
            if done == 1:
                rows.writerow(["file", *facts])
            rows.writerow([name.as_posix(), *facts.values()])
            yield done


def write_webdataset(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write tar files of at most 10,000 images: ``NAME.png``, ``NAME.cls`` and ``NAME.json``."""
    numbered = enumerate(images, 1)
    for first in range(0, len(images), _PER_ARCHIVE):
        path = made / f"synthetic-{first // _PER_ARCHIVE:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for done, image in islice(numbered, _PER_ARCHIVE):
                facts = images.facts(image)
                for suffix, content in (
                    ("png", marked_png(image.pixels, facts)),
                    ("cls", str(image.label).encode()),
                    ("json", for_json(facts).encode()),
                ):
                    entry = tarfile.TarInfo(f"{image.name}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                yield done


def write_npz(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write ``synthetic.npz`` in MedMNIST's layout, and the facts of all images as JSON."""
    every = [*images]
    pixels = np.stack([image.pixels for image in every])
    facts, own = images.facts(every[0]), ("class", "class_index", "index")
    np.savez_compressed(
        made / "synthetic.npz",
        train_images=pixels[:, 0] if pixels.shape[1] == 1 else np.moveaxis(pixels, 1, -1),
        train_labels=np.array([[image.label] for image in every]),
        index=np.array([image.index for image in every]),
        class_names=np.array(images.config.class_names),
        facts=np.array(for_json({key: facts[key] for key in facts if key not in own})),
    )
    yield len(every)


def folder_file(images: SyntheticSet, image: SyntheticImage, suffix: str) -> Path:
    """Return a file's place in a folder of its class."""
    return Path(images.folders[image.label], f"{image.name}.{suffix}")


def for_json(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON, in which an ε without bound is null."""
    whole = {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in facts.items()}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False)
