"""The Flower bundle: the code that sites are asked to run, as one file that can be looked at.

Nothing in a bundle is imported or run here; it is a zip file, read with suspicion.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from deploy.flower import PACKAGES, stage_app
from dppm_model.errors import PaperError
from dppm_model.files import write_bytes

MOST_BYTES = 64 << 20
# What reading a zip file of somebody else's making may raise.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)
_OWN = "pyproject.toml", ".info/CONTENT"  # what Flower adds to the packages
_NEEDED = (*_OWN, "client/__init__.py", "client/app.py", "dppm_model/__init__.py")
# No path but that of a Python or YAML file of a package: nothing that a terminal or a file system
# would take for something else.
_NAME = re.compile(r"\w+(/\w+)*\.(py|yaml)", re.ASCII)


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
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise _wrong("it is too large")
            files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except UNREADABLE as error:
        raise _wrong(str(error)) from None
    for name in files.keys() - set(_OWN):
        if not _NAME.fullmatch(name) or name.partition("/")[0] not in PACKAGES:
            raise _wrong(f"it holds {name!r}")
    if missing := set(_NEEDED) - files.keys():
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
