"""The announcement of a run, for its sites to approve."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.kit.bundle import MOST_BYTES, digest_of, files_of
from deploy.kit.enrolment import fingerprint, named, require_file
from dppm_model.errors import DataError, DppmError, EnrolmentError
from dppm_model.files import write_bytes
from dppm_model.plan import Plan
from dppm_model.reading import parse_json, read_bytes, reading
from dppm_model.records.shards import Manifest
from dppm_model.securesum.peers import parse_peers, peers_text

_PARTS = ("federation", "plan.json", "facts.json", "peers.toml", "bundle.fab")
_HINT = "Ask the server's operator to send it again."


@dataclass(frozen=True)
class Facts:
    """Public facts about the sites' records: images of ``shape`` (C, H, W), and their classes.

    ``names`` are those of the classes in label order; empty if the server gave none.
    """

    shape: tuple[int, int, int]
    classes: int
    names: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Parse the output of `to_json`, within a block of `reading`; raises any exception."""
        raw = parse_json(text)
        shape = tuple(int(n) for n in raw["shape"])
        names = tuple(str(name) for name in raw["names"])
        if len(shape) != 3:
            raise ValueError("shape has not three numbers")
        return cls(shape, int(raw["classes"]), names)

    def check(self, held: Manifest) -> None:
        """Raise `DataError` if a site's records have images of another shape or other classes."""
        asked = (self.shape, self.names or self.classes)
        own = (held.shape, held.classes if self.names else len(held.classes))
        if asked != own:
            raise DataError(
                f"this site's records are {_described(held.shape, held.classes)}, the run is for "
                f"{_described(self.shape, self.names or self.classes)}.",
                "Import them as announced (--size, and the same class names at every site).",
            )


def _described(shape: tuple[int, int, int], classes: tuple[str, ...] | int) -> str:
    named = f"{classes} classes" if isinstance(classes, int) else f"classes {', '.join(classes)}"
    return f"{'×'.join(map(str, shape))} with {named}"


@dataclass(frozen=True)
class Announcement:
    """A run to be approved by its sites.

    It has the federation's name, the plan, the facts that the records must match, the identity key
    of every site by name, and the bundle of code to run (`deploy.kit.bundle`).
    """

    federation: str
    plan: Plan
    facts: Facts
    peers: dict[str, bytes]
    bundle: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint that operators compare; it must be the same at every site."""
        return fingerprint(
            self.federation.encode(),
            self.plan.digest.encode(),
            self.facts.to_json().encode(),
            peers_text(self.peers).encode(),
            digest_of(self.bundle).encode(),
        )

    def write(self, path: Path) -> None:
        """Write the announcement, a zip file."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            plan, facts = self.plan.to_json(), self.facts.to_json()
            parts: tuple[str | bytes, ...] = (
                self.federation,
                plan,
                facts,
                peers_text(self.peers),
                self.bundle,
            )
            for name, part in zip(_PARTS, parts, strict=True):
                archive.writestr(name, part)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Announcement:
        """Read an announcement; `EnrolmentError` if it is damaged, or its parts contradict."""
        require_file(path)
        try:
            with reading(path, EnrolmentError, _HINT):
                return cls._of(path)
        except DppmError as error:
            message = error.message if str(path) in error.message else f"{path}: {error.message}"
            raise EnrolmentError(message, error.hint) from None

    @classmethod
    def _of(cls, path: Path) -> Announcement:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * MOST_BYTES:
                raise EnrolmentError("it is too large.", _HINT)
            federation, plan, facts, peers, bundle = (archive.read(name) for name in _PARTS)
        found = cls(
            named("federation", federation.decode()),
            Plan.from_json(plan.decode()),
            Facts.from_json(facts.decode()),
            parse_peers(peers.decode(), str(path)),
            bundle,
        )
        files_of(found.bundle)
        model, held = found.plan.model, found.facts
        if (model.shape, model.classes) != (held.shape, held.classes):
            raise EnrolmentError("its plan's model is for other images than its facts.", _HINT)
        found.plan.check_roster(found.peers.values())
        return found
