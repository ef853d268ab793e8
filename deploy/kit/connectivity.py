"""Ask the server, as the site's SuperNode would, whether it is there and knows this site.

A SuperLink accepts a node key that is registered and not connected already; it says no more than
yes or no, so what a no means is told by a second question.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from deploy.flower_adapter import NodeClient, node_client
from dppm_model.errors import ConfigError, NotConnected, NotEnrolled, Untrusted
from dppm_model.files import write_bytes


def check_server(address: str, authority: Path) -> str | None:
    """Reach the server, and see that its certificate is of the federation's authority and its name.

    Raises `NotConnected` if nothing answers. Raises `Untrusted` if the certificate is not what it
    should be.

    Returns
    -------
    The server's time, as HTTP writes it, if it tells it.
    """
    context = context_of(authority)
    try:
        response = httpx.get(f"https://{address}/", verify=context, timeout=10)
    except httpx.HTTPError as error:
        text = str(error)
        if "CERTIFICATE" in text or "certificate" in text:
            raise Untrusted(
                f"the server at {address} shows a wrong certificate: {text}.",
                "Ask its operator for a new invitation; compare fingerprints over the telephone.",
            ) from None
        raise NotConnected(
            f"the server at {address} does not answer: {text}.",
            "Check the address, that the server runs, and that the firewall lets this port out.",
        ) from None
    date: str | None = response.headers.get("date")
    return date


def context_of(authority: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts only one authority.

    Raises `Untrusted` if its file is not a certificate.
    """
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise Untrusted(f"{authority}: {error}.", "Take it from the invitation again.") from None


def check_enrolled(folder: Path, address: str) -> None:
    """Check that the server knows the site's node key; the server learns only that it was asked.

    Raises `NotEnrolled` if it does not, or if another node uses the key of a site that was never
    connected. Raises `NotConnected` if the server does not answer.
    """
    known = _known(folder / "flower" / "node_id")
    try:
        context_of(folder / "ca.crt")  # a clear error if it is not a certificate
        with node_client(address, folder / "ca.crt", _key(folder)) as client:
            if known is not None and _recognised(client, known):
                return  # not activated: a SuperNode of this site may be connected
            node = client.activate()
            write_bytes(folder / "flower" / "node_id", str(node).encode())
            with contextlib.suppress(httpx.HTTPError):
                client.deactivate(node)
    except httpx.HTTPStatusError as error:
        if error.response.status_code >= 500:
            raise NotConnected(
                f"the server at {address} has no SuperLink behind it.", "Ask its operator."
            ) from None
        raise _unknown(address) from None
    except httpx.HTTPError as error:
        raise NotConnected(
            f"the server at {address} does not answer: {error}.", "Check that it runs."
        ) from None


def _known(path: Path) -> int | None:
    """Return the node number that the server assigned, if this site was ever connected."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _recognised(client: NodeClient, node: int) -> bool:
    """Ask for a run that does not exist: only the holder of the node's key learns that."""
    try:
        client.ask_for_no_run(node)
    except httpx.HTTPStatusError as error:
        if error.response.status_code >= 500:
            raise
        return error.response.status_code != httpx.codes.UNAUTHORIZED
    return True


def _unknown(address: str) -> NotEnrolled:
    return NotEnrolled(
        f"the server at {address} does not accept this site's node key.",
        "Send enrolment.json to its operator, who runs `dppm server enrol`.",
    )


def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key((folder / "node.key").read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder / 'node.key'} is not a node key.", "Restore it from a backup.")
    return key
