"""Certificates of the server and node keys of the sites, made by `cryptography`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from dppm_model.errors import ConfigError
from dppm_model.files import write_bytes

_CA_DAYS, _SERVER_DAYS = 3650, 397
_SLACK = timedelta(minutes=10)  # for sites whose clocks are slow


def make_authority(name: str, certificate: Path, key: Path) -> None:
    """Make a certificate authority for one federation: two PEM files, the key private."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dppm"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority"),
        ]
    )
    built = _builder(subject, subject, private.public_key(), _CA_DAYS, is_authority=True)
    _write_key(key, private)
    _write_signed(certificate, built, private)


def make_certificate(
    names: list[str], authority: Path, authority_key: Path, certificate: Path, key: Path
) -> None:
    """Make a server's certificate for host names and addresses, signed by the authority."""
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = load_pem_private_key(authority_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dppm server")])
    built = _builder(
        subject, issuer.subject, private.public_key(), _SERVER_DAYS, is_authority=False
    )
    for extension in (
        x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName(list(map(_name, names))),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
    ):
        built = built.add_extension(extension, critical=False)
    _write_key(key, private)
    _write_signed(certificate, built, signer)


def check_pem(files: Sequence[Path]) -> None:
    """Check an operator's own certificate, key and authority; `ConfigError` if one is invalid."""
    readers: tuple[Callable[[bytes], object], ...] = (
        x509.load_pem_x509_certificates,
        lambda content: load_pem_private_key(content, None),
        x509.load_pem_x509_certificates,
    )
    for path, read in zip(files, readers, strict=False):
        try:
            read(path.read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(
                f"{path}: {error}.", "Give PEM files; the key must have no passphrase."
            ) from None


def make_node_key(path: Path) -> None:
    """Make the key by which a site authenticates to the SuperLink: OpenSSH, P-384, and ``.pub``."""
    private = ec.generate_private_key(ec.SECP384R1())
    content = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_bytes(path, content)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_bytes(path.with_suffix(".pub"), public + b"\n")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: int,
    *,
    is_authority: bool,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    constraints = x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None)
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        **dict.fromkeys((*unused, "encipher_only", "decipher_only"), False),
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_signed(
    path: Path, builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey
) -> None:
    write_bytes(path, builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_bytes(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
