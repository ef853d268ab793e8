"""A certificate of 127.0.0.1."""

from pathlib import Path

from deploy.kit.keys import make_authority, make_certificate


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Make a certificate; return its chain, its key, and the certificate of its authority."""
    authority, signing, chain, key = (
        folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key")
    )
    make_authority("test", authority, signing)
    make_certificate(["127.0.0.1"], authority, signing, chain, key)
    return chain, key, authority
