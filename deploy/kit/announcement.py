"""The third paper: a run, as its sites are asked to approve it, and what records it is for."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.kit.bundle import MOST_BYTES, UNREADABLE, digest_of, files_of
from deploy.kit.papers import fingerprint, named, require_file
from dppm_model.errors import DataError, DppmError, PaperError
from dppm_model.files import write_bytes
from dppm_model.plan import Plan
from dppm_model.records.view import Manifest
from dppm_model.securesum.group import parse_peers, peers_text


@dataclass(frozen=True)
class Facts:
    """What is public about the sites' records.

    Attributes
    ----------
    shape
        (C, H, W) of an image.
    classes
        How many classes there are.
    names
        Their names in the order of the labels, or nothing if the server did not say.
    """

    shape: tuple[int, int, int]
    classes: int
    names: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write them, in one way."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Read what `to_json` wrote; ValueError, KeyError or TypeError if it is nothing of it."""
        raw = json.loads(text)
        shape = tuple(int(n) for n in raw["shape"])
        names = tuple(str(name) for name in raw["names"])
        if len(shape) != 3:
            raise ValueError("shape has not three numbers")
        return cls(shape, int(raw["classes"]), names)

    def check(self, held: Manifest) -> None:
        """Compare with a site's records.

        Raises
        ------
        DataError
            If they are of other images, or their labels count other classes.
        """
        asked = (self.shape, self.names or self.classes)
        own = (held.shape, held.classes if self.names else len(held.classes))
        if asked != own:
            raise DataError(
                f"this site's records are {_described(held.shape, held.classes)}, the run is for "
                f"{_described(self.shape, self.names or self.classes)}.",
                "Import them as announced (--size; the same names of classes at every site).",
            )


def _described(shape: tuple[int, int, int], classes: tuple[str, ...] | int) -> str:
    named = f"{classes} classes" if isinstance(classes, int) else f"classes {', '.join(classes)}"
    return f"{'×'.join(map(str, shape))} with {named}"


@dataclass(frozen=True)
class Announcement:
    """One run, as its sites are asked to approve it.

    Attributes
    ----------
    federation
        Its name.
    plan
        All that will be asked, and what it costs.
    facts
        What the records must be.
    peers
        Name and identity key of every site.
    bundle
        The code to run (`deploy.kit.bundle`).
    """

    federation: str
    plan: Plan
    facts: Facts
    peers: dict[str, bytes]
    bundle: bytes

    @property
    def fingerprint(self) -> str:
        """What all ends read aloud: the same at every site, or somebody is being told a lie."""
        return fingerprint(
            self.federation.encode(),
            self.plan.digest.encode(),
            self.facts.to_json().encode(),
            peers_text(self.peers).encode(),
            digest_of(self.bundle).encode(),
        )

    def write(self, path: Path) -> None:
        """Write the paper, a zip file."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("federation", self.federation)
            archive.writestr("plan.json", self.plan.to_json())
            archive.writestr("facts.json", self.facts.to_json())
            archive.writestr("peers.toml", peers_text(self.peers))
            archive.writestr("bundle.fab", self.bundle)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Announcement:
        """Read the paper and check that its parts fit together.

        Raises
        ------
        PaperError
            If they do not, or it is no announcement.
        """
        require_file(path)
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > 2 * MOST_BYTES:
                    raise PaperError("it is too large.", "Ask the server's operator anew.")
                parts = {
                    name: archive.read(name)
                    for name in (
                        "federation",
                        "plan.json",
                        "facts.json",
                        "peers.toml",
                        "bundle.fab",
                    )
                }
            paper = cls(
                named("federation", parts["federation"].decode()),
                Plan.from_json(parts["plan.json"].decode()),
                Facts.from_json(parts["facts.json"].decode()),
                parse_peers(parts["peers.toml"].decode(), str(path)),
                parts["bundle.fab"],
            )
            files_of(paper.bundle)
            paper.plan.group(tuple(sorted(paper.peers.values())))
        except DppmError as error:
            raise PaperError(f"{path}: {error.cause}", error.cure) from None
        except UNREADABLE as error:
            raise PaperError(
                f"{path} is no announcement: {error}.", "Ask the server's operator for it anew."
            ) from None
        return paper
