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
    who = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "dppm"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority"),
        ]
    )
    built = (
        _builder(who, who, private.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(private, hashes.SHA256())
    )
    _write_key(key, private)
    write_bytes(certificate, built.public_bytes(Encoding.PEM))


def make_certificate(
    names: list[str], authority: Path, authority_key: Path, certificate: Path, key: Path
) -> None:
    """Make a server's certificate for host names and addresses, signed by the authority."""
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = load_pem_private_key(authority_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    private = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dppm server")])  # see the names
    built = (
        _builder(who, issuer.subject, private.public_key(), _SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(list(map(_name, names))), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    _write_key(key, private)
    write_bytes(certificate, built.public_bytes(Encoding.PEM))


def check_pem(files: Sequence[Path]) -> None:
    """Check an operator's own certificate, key and authority.

    Raises `ConfigError` if one of them is invalid.
    """
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
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_bytes(path, content)
