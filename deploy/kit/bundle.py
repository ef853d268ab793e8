"""The Flower bundle: the code that sites are asked to run, as one file that can be looked at.

Nothing in a bundle is imported or run here; it is a zip file, read with suspicion.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from flwr.cli.build import build_fab_from_disk

from deploy.flower import PACKAGES, stage_app
from dppm_model.errors import PaperError
from dppm_model.files import write_bytes

_MOST_BYTES = 64 << 20
_OWN = "pyproject.toml", ".info/CONTENT"  # what Flower adds to the packages


def build_bundle() -> bytes:
    """Bundle the code of this installation; the same code gives the same bytes."""
    with tempfile.TemporaryDirectory(prefix="dppm-bundle-") as folder:
        return build_fab_from_disk(stage_app(Path(folder)))


def digest_of(bundle: bytes) -> str:
    """Return what Flower knows a bundle by, its SHA-256."""
    return hashlib.sha256(bundle).hexdigest()


def files_of(bundle: bytes) -> dict[str, bytes]:
    """Read a bundle: path to content.

    Raises
    ------
    PaperError
        If it is no bundle of this app, or holds a path or a size that it should not.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise _wrong("it is too large")
            files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise _wrong(str(error)) from None
    for name in files:
        path = PurePosixPath(name)
        if name not in _OWN and (
            path.is_absolute() or ".." in path.parts or path.parts[0] not in PACKAGES
        ):
            raise _wrong(f"it holds {name}")
    if missing := set(_OWN) - files.keys():
        raise _wrong(f"{missing.pop()} is missing")
    return files


def unpack(bundle: bytes, folder: Path) -> Path:
    """Write a bundle's files to ``folder``, which did not hold others before."""
    for name, content in files_of(bundle).items():
        write_bytes(folder / name, content)
    return folder


def differences(bundle: bytes) -> Iterator[tuple[str, str]]:
    """Compare a bundle with this installation: (path, ``new``, ``changed`` or ``missing``)."""
    theirs, ours = (
        {name: content for name, content in files_of(b).items() if name not in _OWN}
        for b in (bundle, build_bundle())
    )
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            yield name, "new"
        elif name not in theirs:
            yield name, "missing"
        elif theirs[name] != ours[name]:
            yield name, "changed"


def _wrong(why: str) -> PaperError:
    return PaperError(
        f"The bundle cannot be used: {why}.", "Ask the server's operator for it anew."
    )
