"""Files that operators exchange, and fingerprints that they compare over the telephone.

    invitation     server -> site    the server's address, and its certificate authority
    enrolment      site -> server    the site's node key and identity key, signed by both
    announcement   server -> sites   one run: its plan, all sites' identities, the code to run

None holds a secret. Comparing the fingerprint shows that a file was not changed on its way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from dppm_model.errors import ConfigError, EnrolmentError
from dppm_model.files import write_json
from dppm_model.reading import read_json, reading
from dppm_model.securesum.keys import Identity, verify

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile(r"[0-9]{1,5}")


def named(field: str, name: str) -> str:
    """Check the name of a site, a federation or a run, which is used in file names.

    Raises `EnrolmentError` unless it is 1 to 40 lower-case letters, digits and hyphens.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise EnrolmentError(
            f"{field} is {name!r}.", "Use up to 40 lower-case letters, digits and hyphens."
        )
    return name


def split_address(field: str, address: str) -> tuple[str, int]:
    """Split ``host:port``; anything else is a `ConfigError`."""
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    good = _HOST.fullmatch(host) and _PORT.fullmatch(port) and 0 < int(port) < 65536
    if not good:
        raise ConfigError(f"{field} is {address!r}.", "Give host:port, as in fed.example.org:8443.")
    return host.strip("[]"), int(port)


def fingerprint(*parts: bytes) -> str:
    """Return 160 bits of a SHA-256, in eight groups of four letters and digits to read aloud."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    text = base64.b32encode(digest.digest()[:20]).decode()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


class _JsonFile:
    """A frozen dataclass of texts, written as a JSON file that names its kind."""

    kind: ClassVar[str]

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        write_json(path, {"dppm": f"{self.kind} 1", **asdict(self)})  # type: ignore[call-overload]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check the file; anything else is an `EnrolmentError` or a `ConfigError`."""
        require_file(path)
        hint = "Ask the sender for it again."
        with reading(path, EnrolmentError, hint):
            raw = dict(read_json(path))
        good = raw.pop("dppm", "") == f"{cls.kind} 1" and raw.keys() == cls.__annotations__.keys()
        if not (good and all(isinstance(value, str) for value in raw.values())):
            raise EnrolmentError(f"{path} is not a valid {cls.kind}.", hint)
        found = cls(**raw)
        found.check(path)
        return found

    def check(self, path: Path) -> None:
        """Refuse content that is not valid."""
        raise NotImplementedError


@dataclass(frozen=True)
class Invitation(_JsonFile):
    """A federation's name, the public ``host:port`` of its server, and the authority (PEM).

    The authority must have signed the server's certificate.
    """

    kind = "invitation"
    federation: str
    address: str
    authority: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all fields, which both operators read aloud."""
        return fingerprint(*(value.encode() for value in asdict(self).values()))

    def check(self, path: Path) -> None:
        """Check the name and the address."""
        named("federation", self.federation)
        split_address("address", self.address)


@dataclass(frozen=True)
class Enrolment(_JsonFile):
    """The identity of a site.

    Attributes
    ----------
    federation, site
        Names.
    node_key
        OpenSSH public key with which its SuperNode authenticates.
    identity
        Ed25519 public key (hexadecimal) that its peers in the secure sum pin.
    identity_signature, node_signature
        Signatures of all of the above by both keys, which prove possession.
    """

    kind = "enrolment"
    federation: str
    site: str
    node_key: str
    identity: str
    identity_signature: str
    node_signature: str

    @classmethod
    def make(cls, federation: str, site: str, identity: Identity, node_key: Path) -> Enrolment:
        """Sign a site's enrolment with its two keys."""
        public = node_key.with_suffix(".pub").read_text().strip()
        statement = _statement(federation, named("site", site), public, identity.public.hex())
        private = load_ssh_private_key(node_key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        signatures = identity.sign(statement), private.sign(statement, ec.ECDSA(SHA256()))
        return cls(federation, site, public, identity.public.hex(), *(s.hex() for s in signatures))

    @property
    def statement(self) -> bytes:
        """The signed part."""
        return _statement(self.federation, self.site, self.node_key, self.identity)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the signed part, which both operators read aloud."""
        return fingerprint(self.statement)

    def check(self, path: Path) -> None:
        """Check the name, and that both keys have signed."""
        named("site", self.site)
        try:
            node = load_ssh_public_key(self.node_key.encode())
            # Each key has one spelling: a comment after it would make it look like another key.
            signed = self.node_key == " ".join(self.node_key.split(" ")[:2]) and verify(
                bytes.fromhex(self.identity), self.statement, bytes.fromhex(self.identity_signature)
            )
            if signed := signed and isinstance(node, ec.EllipticCurvePublicKey):
                node.verify(bytes.fromhex(self.node_signature), self.statement, ec.ECDSA(SHA256()))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            signed = False
        if not signed:
            raise EnrolmentError(
                f"{path}: the enrolment is not signed by its own keys.",
                "Ask the site to send it again.",
            )


def require_file(path: Path) -> None:
    """Refuse a file that does not exist."""
    if not path.is_file():
        raise EnrolmentError(f"{path} does not exist.", "Name the file that you were sent.")


def _statement(federation: str, site: str, node_key: str, identity: str) -> bytes:
    return json.dumps(["dppm enrolment 1", federation, site, node_key, identity]).encode()
