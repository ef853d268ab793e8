"""Ask the server, as the site's SuperNode would, whether it is there and knows this site.

A SuperLink accepts a node key that is registered and not already connected. It answers only yes or
no, so a second question finds out what a no means.
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
    """Connect to the server, and return the time that it sends, as HTTP writes it, if any.

    Raises `NotConnected` if nothing answers; `Untrusted` if its certificate is not signed by the
    federation's authority, or is for another name.
    """
    context = context_of(authority)
    try:
        response = httpx.get(f"https://{address}/", verify=context, timeout=10)
    except httpx.HTTPError as error:
        text = str(error)
        if "certificate" in text.lower():
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
    """Return a TLS context that trusts only one certificate; `Untrusted` if the file has none."""
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise Untrusted(f"{authority}: {error}.", "Take it from the invitation again.") from None


def check_enrolled(folder: Path, address: str) -> None:
    """Check that the server knows the site's node key; the server learns only that it was asked.

    Raises `NotEnrolled` if it does not, or if another node uses the key of a site that was never
    connected; `NotConnected` if the server does not answer.
    """
    known = None  # the number that the server gave this node, if it was ever connected
    with contextlib.suppress(OSError, ValueError):
        known = int((folder / "flower" / "node_id").read_text())
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
        raise NotEnrolled(
            f"the server at {address} does not accept this site's node key.",
            "Send enrolment.json to its operator, who runs `dppm server enrol`.",
        ) from None
    except httpx.HTTPError as error:
        raise NotConnected(
            f"the server at {address} does not answer: {error}.", "Check that it runs."
        ) from None


def _recognised(client: NodeClient, node: int) -> bool:
    """Ask for a run that does not exist: only the holder of the node's key gets that answer."""
    try:
        client.ask_for_no_run(node)
    except httpx.HTTPStatusError as error:
        if error.response.status_code >= 500:
            raise
        return error.response.status_code != httpx.codes.UNAUTHORIZED
    return True


def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key((folder / "node.key").read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder / 'node.key'} is not a node key.", "Restore it from a backup.")
    return key
