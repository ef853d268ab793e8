"""The Flower bundle: the code of a run, as one file for review by the sites.

A bundle is an untrusted zip file: nothing in it is imported or run here.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from deploy import flower_adapter
from deploy.flower import stage_app
from deploy.import_closure import APPS, PACKAGES, Files, closure
from dppm_model.errors import EnrolmentError
from dppm_model.files import write_bytes
from dppm_model.reading import reading

MOST_BYTES = 64 << 20
_HINT = "Ask the server's operator to send it again."
_OWN = _PROJECT, _LIST = "pyproject.toml", ".info/CONTENT"  # added by Flower
_NEEDED = (*_OWN, "client/__init__.py", "client/app.py", "dppm_model/__init__.py")
# Only paths of Python files in packages, with no characters that a terminal or a file system
# might interpret.
_NAME = re.compile(r"\w+(/\w+)*\.py", re.ASCII)


def build_bundle() -> bytes:
    """Bundle the code of this installation; the same code gives the same bytes."""
    with tempfile.TemporaryDirectory(prefix="dppm-bundle-") as folder:
        return flower_adapter.build_bundle(stage_app(Path(folder)))


def digest_of(bundle: bytes) -> str:
    """Return the SHA-256 by which Flower identifies a bundle."""
    return hashlib.sha256(bundle).hexdigest()


def files_of(bundle: bytes) -> dict[str, bytes]:
    """Read a bundle: path to content.

    Raises `EnrolmentError` if it is not a bundle of this app, or a path or its size is not allowed.
    """
    with (
        reading("The bundle", EnrolmentError, _HINT),
        zipfile.ZipFile(io.BytesIO(bundle)) as archive,
    ):
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise _wrong("it is too large")
        files = {entry.filename: archive.read(entry) for entry in entries}
        if len(files) < len(entries):  # readers would disagree on which of the two counts
            raise _wrong("it holds a name twice")
    for name in files.keys() - set(_OWN):
        if not _NAME.fullmatch(name) or name.partition("/")[0] not in PACKAGES:
            raise _wrong(f"it holds {name!r}")
    if missing := set(_NEEDED) - files.keys():
        raise _wrong(f"{missing.pop()} is missing")
    return files


@lru_cache(maxsize=4)  # needed for every message
def part_of(bundle: bytes, app: str) -> Files:
    """Return the files of a bundle that run at a ``site``, or at the ``server``."""
    return closure(files_of(bundle), *APPS[app])


def write_files(files: Files, folder: Path) -> None:
    """Write files of a bundle to a new folder."""
    for name, content in files.items():
        write_bytes(folder / name, content)


def differences(bundle: bytes) -> Iterator[tuple[str, str]]:
    """Compare a bundle with this installation: (path, ``new``, ``changed`` or ``missing``).

    Flower's own list of files counts as changed if it does not match the bundle's files.
    """
    theirs, ours = files_of(bundle), files_of(build_bundle())
    ours[_LIST] = _listing(theirs)
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            yield name, "new"
        elif name not in theirs:
            yield name, "missing"
        elif theirs[name] != ours[name]:
            yield name, "changed"


def _listing(files: dict[str, bytes]) -> bytes:
    """Return the list that Flower adds to these files: path, SHA-256 and bits of each."""
    names = [_PROJECT, *sorted(files.keys() - set(_OWN))]
    lines = (f"{n},{hashlib.sha256(files[n]).hexdigest()},{8 * len(files[n])}" for n in names)
    return "\n".join(lines).encode()


def _wrong(why: str) -> EnrolmentError:
    return EnrolmentError(f"The bundle cannot be used: {why}.", _HINT)
