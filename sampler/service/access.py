"""Access: a token for each client, and no open door to the network."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path

from dppm_model.errors import BadToken, ConfigError

_SHORTEST = 16  # characters of a token
_BEARER = "Bearer "


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 host stands in brackets.

    Raises ConfigError if it is malformed.
    """
    host, _, port = address.rpartition(":")
    if not host.strip("[]") or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"The address is {address!r}.", "Give HOST:PORT, as 127.0.0.1:50051.")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach ``host``; of names, only localhost qualifies."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_guard(host: str, *, tls: bool, tokens: bool, insecure: bool) -> None:
    """Refuse to listen to the network without TLS and tokens.

    Raises ConfigError if ``host`` is not loopback and one of them is missing, without ``insecure``.
    """
    missing = [name for name, there in (("TLS", tls), ("tokens", tokens)) if not there]
    if missing and not is_loopback(host) and not insecure:
        raise ConfigError(
            f"Other machines can reach {host}, but there is no {' and no '.join(missing)}.",
            "Give --tls-cert, --tls-key and --token-file, or pass --insecure.",
        )


def read_tokens(path: Path) -> dict[str, str]:
    """Read a token file: on each line a client's name, a space, and its token.

    Raises ConfigError, which never quotes a token, if the file or a line is unreadable.

    Returns
    -------
    dict
        Token by client. Empty lines and lines that begin with # are ignored.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: {error}.", "Name a text file with one client per line."
        ) from None
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, token = line.strip().partition(" ")
        token = token.strip()
        if len(token) < _SHORTEST or " " in token or not token.isascii():
            raise ConfigError(
                f"{path}, line {number}: not a name and a token of {_SHORTEST} characters or more.",
                "Write NAME TOKEN; `openssl rand -hex 32` makes a token.",
            )
        if name in tokens or token in tokens.values():
            raise ConfigError(
                f"{path}, line {number}: a repeated name or token.",
                "Give each client its own name and token.",
            )
        tokens[name] = token
    if not tokens:
        raise ConfigError(f"{path} has no tokens.", "Write a line NAME TOKEN for each client.")
    return tokens


class Access:
    """Identifies clients by their tokens, or by their hosts if there are no tokens.

    ``tokens`` maps clients to tokens; None admits anyone who can connect.
    """

    def __init__(self, tokens: Mapping[str, str] | None) -> None:
        self._digests = (
            None
            if tokens is None
            else {name: hashlib.sha256(token.encode()).digest() for name, token in tokens.items()}
        )

    def client(self, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> str:
        """Return the caller's name.

        ``metadata`` is the call's; ``peer`` is as gRPC names it, ``ipv4:127.0.0.1:43210``. Raises
        BadToken if tokens are required and the call has no valid one.
        """
        if self._digests is None:
            return host_of(peer)
        values = [value for key, value in metadata if key == "authorization"]
        if len(values) != 1 or not str(values[0]).startswith(_BEARER):
            raise BadToken(
                "The call has no token.", 'Send metadata "authorization: Bearer TOKEN" with it.'
            )
        given = hashlib.sha256(str(values[0]).removeprefix(_BEARER).encode()).digest()
        # Every token is compared, each in constant time, so the time reveals nothing about them.
        found = [name for name, one in self._digests.items() if hmac.compare_digest(one, given)]
        if not found:
            raise BadToken("The token is unknown.", "Ask the server's operator for one.")
        return found[0]


def host_of(peer: str) -> str:
    """Return the host of a caller as gRPC names it, without its port."""
    return peer.rpartition(":")[0] or peer


def bearer(token: str) -> tuple[str, str]:
    """Return the metadata entry that carries a token."""
    return "authorization", _BEARER + token
