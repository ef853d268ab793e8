"""Limits of the live page: how many connections, for how long, and how often each host may ask.

The page runs in the process that trains, so a client must not be able to take memory, open files
or time from the training.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS, OF_A_HOST = 128, 32
HEAD_SECONDS = 10.0  # until a request's head has arrived
ANSWER_SECONDS = 30.0  # until its body has arrived and its answer was read
LARGEST_HEAD = 16 * 1024  # bytes


def network_of(host: str) -> str:
    """Return what counts as a host: an IPv6 client owns a whole network, so that counts as one."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host


class BoundedListener(socket.socket):
    """A listening socket with a bound on open connections, silent ones included.

    A connection beyond the bound ends the oldest one of its host, or of the host that has the most.
    This comes before TLS, whose handshakes a web server does not count. Port 0 takes a free port.
    Raises `OSError` if it cannot listen.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._open: list[tuple[str, socket.socket]] = []  # oldest first
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind((host, port))
            self.listen()
        except OSError:
            self.close()
            raise

    def accept(self) -> tuple[socket.socket, Any]:
        """See `socket.socket.accept`."""
        connection, address = super().accept()
        host = network_of(address[0])
        self._open = [(name, one) for name, one in self._open if one.fileno() >= 0]
        count = Counter(name for name, _ in self._open)
        if count[host] >= OF_A_HOST:
            self._end_one_of(host)
        elif len(self._open) >= CONNECTIONS:
            self._end_one_of(count.most_common(1)[0][0])
        self._open.append((host, connection))
        return connection, address

    def _end_one_of(self, host: str) -> None:
        oldest = next(pair for pair in self._open if pair[0] == host)
        self._open.remove(oldest)
        with suppress(OSError):
            oldest[1].shutdown(socket.SHUT_RDWR)  # its owner sees the end and closes it


class TimedProtocol(H11Protocol):
    """uvicorn's connection, which is closed if its client is too slow."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def handle_events(self) -> None:
        """Handle what has arrived; a new request restarts the timer."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._within(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if not self.transport.is_closing():  # if it is, the rest must be read in the time left
            self._within(HEAD_SECONDS)
        super().on_response_complete()

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


class RateLimit:
    """At most ``most`` uses by each host in a window of ``seconds``, which begins with a use."""

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._uses, self._until = Counter[str](), clock()

    def left(self, host: str) -> bool:
        """Return whether a host has a use left."""
        if (now := self._clock()) >= self._until:
            self._uses, self._until = Counter(), now + self._seconds
        return self._uses[host] < self._most

    def take(self, host: str) -> None:
        """Count one use."""
        self._uses[host] += 1
