"""Keys: a site's lasting identity, its channel for one run, and the keys derived from them.

All primitives come from `cryptography`: Ed25519 signatures, X25519 agreement, HKDF-SHA256 and
ChaCha20-Poly1305. Every derived key serves one purpose, named by `Group.label`, and one message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dppm_model.errors import ConfigError, ForgedShare, UnknownSite
from dppm_model.files import write_bytes
from dppm_model.securesum.group import Group

_NONCE = bytes(12)  # every key seals one message only
_ANY = bytes(range(32))  # a private key to try public ones with


def derive(secret: bytes, label: bytes) -> bytes:
    """Derive the 32-byte key of one purpose from a secret (HKDF-SHA256)."""
    return HKDF(SHA256(), 32, salt=None, info=label).derive(secret)


def public_of(private: bytes) -> bytes:
    """Return the X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes) -> bytes:
    """Return the X25519 secret that both ends can compute.

    Raises UnknownSite if ``public`` is not a usable key.
    """
    try:
        other = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(other)
    except ValueError:
        raise UnknownSite("A public key is invalid.", "Ask its site to join again.") from None


def seal(key: bytes, content: bytes, bound: bytes) -> bytes:
    """Encrypt and authenticate ``content``, and authenticate ``bound`` with it."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, content, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes, sender: int) -> bytes:
    """Undo `seal`.

    Raises ForgedShare if either was changed or is for another sender, receiver or round.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, bound)
    except InvalidTag:
        raise ForgedShare(
            f"The share from site {sender} was not made by that site for this site and round.",
            "The server mixed up or changed messages; ask its operator.",
        ) from None


def usable(public: bytes) -> bool:
    """Say whether a public key is usable: 32 bytes, and not of low order.

    Any private key and a public key of low order agree on the same secret, zero.
    """
    try:
        agree(_ANY, public)
    except UnknownSite:
        return False
    return True


@dataclass(frozen=True)
class Channel:
    """A site's public channel key of a run, signed by its identity."""

    public: bytes
    signature: bytes

    def verify(self, group: Group, index: int) -> None:
        """Check the signature.

        Raises UnknownSite if it is not by the pinned identity, or the key is unusable.
        """
        statement = group.label("channel") + self.public
        if not verify(group.roster[index], statement, self.signature):
            raise UnknownSite(
                f"The channel key of site {index} is not signed by the pinned identity.",
                "Compare identity keys over the telephone; this may be an attack.",
            )
        if not usable(self.public):
            raise UnknownSite(
                f"The channel key of site {index} is invalid.", "That site must repair it."
            )


def joined(group: Group, nonce: bytes, channel: bytes) -> bytes:
    """Return the text that a site signs to join: a fresh nonce, so that no old answer fits."""
    return group.label("join") + nonce + channel


def attested(group: Group, number: int, published: Mapping[int, bytes]) -> bytes:
    """Return the text that a site signs for a try: its participants, and what each has published.

    One hash keeps the signed text, which is verified N times, from growing with N.
    """
    listed = b"".join(i.to_bytes(8) + what for i, what in sorted(published.items()))
    return group.label("participants", number) + hashlib.sha256(listed).digest()


def verify(identity: bytes, statement: bytes, signature: bytes) -> bool:
    """Say whether ``identity`` has signed ``statement``."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, statement)
    except InvalidSignature:
        return False
    return True


class Identity:
    """A site's lasting Ed25519 key. Operators exchange and pin the public half."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)

    @classmethod
    def generate(cls) -> Identity:
        """Draw a new identity."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def write(self, path: Path) -> None:
        """Store the identity, readable by its owner only."""
        write_bytes(path, self._key.private_bytes_raw())

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Read a stored identity.

        Raises ConfigError if the file is missing or is not an identity.
        """
        try:
            return cls(path.read_bytes())
        except (OSError, ValueError):
            raise ConfigError(
                f"{path} is not an identity key.", "Restore it from a backup."
            ) from None

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """Sign a statement, which begins with a label of its group."""
        return self._key.sign(statement)

    def sign_channel(self, group: Group, channel: bytes) -> Channel:
        """Sign the public key of a channel for one run."""
        return Channel(channel, self.sign(group.label("channel") + channel))
