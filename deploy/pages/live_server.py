"""The live page of a run: a small web server that reads the run's folder during training.

It listens on loopback unless configured otherwise, and then only with TLS and tokens. It cannot
change or stop anything, it reads no request's body, and training continues if it cannot be served.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.responses import Response

from deploy.pages.connection_limits import (
    LARGEST_HEAD,
    BoundedListener,
    RateLimit,
    TimedProtocol,
    network_of,
)
from deploy.pages.live_state import LiveState
from dppm_model.errors import BadToken, DppmError, ServiceError
from sampler.service.access import Access, bearer, is_loopback, require_guard, split_address

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d+)?", re.ASCII | re.IGNORECASE)
_START_SECONDS = 10.0
_REQUESTS = (500, 10.0)  # requests of a host, in seconds
_WRONG = (20, 100.0)  # wrong tokens, the same
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CHALLENGE = (
    'Basic realm="DPPM live page: any name, and your token as the password", charset="UTF-8"'
)


class PageApp:
    """The web application (ASGI).

    It decides by the path and the headers as the server read them, never by an address put together
    from parts that a client chooses, such as `Host`.

    Parameters
    ----------
    hosts
        Names under which a browser may ask for it, ``*`` for any. Others are refused, so that no
        other page can read this one under a name of its own that leads here (DNS rebinding).
    access
        Knows the tokens; None lets in anyone who can connect.
    """

    def __init__(self, live: LiveState, hosts: list[str], access: Access | None) -> None:
        self._live, self._hosts, self._access = live, hosts, access
        self._requests, self._wrong = RateLimit(*_REQUESTS), RateLimit(*_WRONG)
        self._one = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI calls it."""
        if scope["type"] != "http":
            return
        answer = await self.answer(scope)
        answer.headers.update(_HEADERS)
        if _all(scope, b"transfer-encoding") or _all(scope, b"content-length") not in ([], ["0"]):
            answer.headers["Connection"] = "close"  # do not wait for a body that is not read
        await answer(scope, receive, send)  # type: ignore[arg-type]

    async def answer(self, scope: Scope) -> Response:
        """Answer a request."""
        host = network_of((scope.get("client") or ("",))[0])
        if not self._requests.left(host):
            return _closing(429, "Too many requests.")
        self._requests.take(host)
        if not self._is_ours(_all(scope, b"host")):
            return _closing(400, "The page is not known under this name.")
        given = _token_of(scope)
        if given is not None and not self._wrong.left(host):
            return _closing(429, "Too many wrong tokens.")
        if not self._knows(given, host):
            text = "This page needs a token: ask the server's operator for one."
            return Response(text, 401, {"WWW-Authenticate": _CHALLENGE}, media_type="text/plain")
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"Allow": "GET, HEAD"})
        try:
            async with self._one:  # one thread reads, no matter how many clients ask
                content = await asyncio.to_thread(self._live.content)
            kind, body = content[scope["path"]]
        except KeyError:
            return Response("There is no such page.", 404)
        except DppmError as error:
            refusal = json.dumps({"message": error.message, "hint": error.hint})
            return Response(refusal, 503, media_type="application/json")
        return Response(body, media_type=kind)

    def _is_ours(self, names: list[str]) -> bool:
        """Return whether the request names exactly one host, and it is one of ours."""
        found = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        return found is not None and ("*" in self._hosts or found[1] in self._hosts)

    def _knows(self, token: str | None, host: str) -> bool:
        """Return whether a request may pass; count a wrong token."""
        if self._access is None or token is None:
            return self._access is None
        try:
            self._access.client([bearer(token)], "")
        except BadToken:
            self._wrong.take(host)
            return False
        return True


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _token_of(scope: Scope) -> str | None:
    """Return a request's token: a program's (Bearer), or a browser's (the password of Basic).

    None stands for a request without one; a header that is neither counts as a wrong token.
    """
    headers = _all(scope, b"authorization")
    if not headers:
        return None
    kind, _, value = headers[0].partition(" ")
    if len(headers) > 1 or kind not in ("Bearer", "Basic"):
        return ""
    if kind == "Bearer":
        return value
    with suppress(ValueError):
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    return ""


def _closing(status: int, text: str) -> Response:
    """Return a refusal that ends the connection."""
    return Response(text, status, {"Connection": "close"}, media_type="text/plain")


@contextmanager
def live_page(
    live: LiveState,
    address: str,
    *,
    tokens: dict[str, str] | None = None,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Serve the page for the length of a block, in a thread; yield its address.

    Raises `ConfigError` if the address is not valid, or other machines can reach it without TLS or
    tokens; `ServiceError` if the address cannot be listened on.

    Parameters
    ----------
    address
        HOST:PORT; port 0, or a port of loopback that is in use, takes a free one.
    tokens, tls
        Tokens by client; certificate chain and key (PEM). Both are required where other machines
        can reach the address.
    """
    host, port = split_address(address)
    require_guard(host, tls=tls is not None, tokens=tokens is not None, insecure=False)
    listener = _listening(host, port)
    hosts = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else ["*"]
    app = PageApp(live, hosts, None if tokens is None else Access(tokens))
    config = uvicorn.Config(
        app,
        loop="asyncio",  # it calls the listener's own accept; other loops do not
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_graceful_shutdown=1,
        ssl_certfile=tls and tls[0],
        ssl_keyfile=tls and tls[1],
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="live page", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while thread.is_alive() and not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    if not server.started:
        listener.close()
        raise _unserved(host, port)
    try:
        yield f"{'http' if tls is None else 'https'}://{host}:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(5)


def _listening(host: str, port: int) -> BoundedListener:
    for one in (port, 0) if is_loopback(host) else (port,):
        with suppress(OSError):
            return BoundedListener(host, one)
    raise _unserved(host, port)


def _unserved(host: str, port: int) -> ServiceError:
    return ServiceError(
        f"The page cannot be served at {host}:{port}.", "Name another address, or a free port."
    )
