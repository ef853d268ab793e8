"""The live page of a run: a small web server beside the training, which only reads its folder.

It listens on loopback unless told otherwise, and then only with TLS and tokens. It cannot change
or stop anything, and a page that cannot be served never stops a training.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from deploy.pages.connection_limits import (
    LARGEST_HEAD,
    BoundedListener,
    RateLimit,
    TimedProtocol,
    network_of,
)
from deploy.pages.live_state import LiveState
from deploy.pages.prometheus import exposition
from deploy.pages.render import render, script
from dppm_model.errors import BadToken, DppmError, ServiceError
from sampler.service.access import Access, bearer, is_loopback, require_guard, split_address

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_COOKIE = "dppm-token"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d+)?", re.ASCII | re.IGNORECASE)
_START_SECONDS = 10.0
_LARGEST_FORM = 4096  # bytes
_REQUESTS = (200, 50.0)  # of a host: at once, and then a second
_WRONG = (20, 0.2)  # wrong tokens, the same
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_app(
    board: LiveState, hosts: list[str], access: Access | None, *, tls: bool = False
) -> App:
    """Build the web application (ASGI).

    It decides by the path and the headers as the server read them, never by an address put together
    from what the client says, such as `Host`.

    Parameters
    ----------
    hosts
        Names under which a browser may ask for it, ``*`` for any: others are refused, so that no
        other page can read this one by a name of its own that leads here (DNS rebinding).
    access
        Knows the tokens; None lets everyone in who can connect.
    tls
        Whether the token's cookie shall travel by TLS only.
    """
    page = _Page(board, hosts, access, tls)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = await page.answer(scope, receive)
        answer.headers.update(_HEADERS)
        if _all(scope, b"transfer-encoding") or _all(scope, b"content-length") not in ([], ["0"]):
            answer.headers["Connection"] = "close"  # what was not read of it is not waited for
        await answer(scope, receive, send)  # type: ignore[arg-type]

    return app


class _Page:
    """See `page_app`. What it sends is made once for each state of the run."""

    def __init__(
        self, board: LiveState, hosts: list[str], access: Access | None, tls: bool
    ) -> None:
        self._board, self._hosts, self._access, self._tls = board, hosts, access, tls
        self._enter = {wrong: render("enter.html", wrong=wrong).encode() for wrong in (False, True)}
        self._requests, self._wrong = RateLimit(*_REQUESTS), RateLimit(*_WRONG)
        self._one = asyncio.Lock()
        self._parts: dict[str, str] | None = None
        self._made: dict[str, tuple[str, bytes]] = {}

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Answer a request."""
        method, path = scope["method"], scope["path"]
        host = network_of((scope.get("client") or ("",))[0])
        if not self._requests.left(host):
            return _closing(429, "Too many requests.")
        self._requests.take(host)
        if not self._is_ours(_all(scope, b"host")):
            return _closing(400, "The page is not known under this name.")
        if path == "/enter" and method == "POST":
            return await self._enters(scope, receive, host)
        given = _token_of(scope)
        if given is not None and not self._wrong.left(host):
            return _closing(429, "Too many wrong tokens.")
        if self._access is not None and not self._knows(given, host):
            answer = self._shut(wrong=False)
            answer.delete_cookie(_COOKIE)  # an old one would count as a wrong token again and again
            return answer
        if method not in ("GET", "HEAD") or path == "/enter":
            allowed = "POST" if path == "/enter" else "GET, HEAD"
            return Response(status_code=405, headers={"Allow": allowed})
        try:
            kind, content = (await self._content())[path]
        except KeyError:
            return Response("There is no such page.", 404)
        except DppmError as error:
            told = json.dumps({"message": error.message, "hint": error.hint})
            return Response(told, 503, media_type="application/json")
        return Response(content, media_type=kind)

    def _is_ours(self, names: list[str]) -> bool:
        """Tell whether the request has one name, of ours, and nothing else in its place."""
        found = _HOST.fullmatch(names[0]) if len(names) == 1 else None
        return found is not None and ("*" in self._hosts or found[1] in self._hosts)

    async def _enters(self, scope: Scope, receive: Receive, host: str) -> Response:
        body = await _body(scope, receive)
        if body is None:
            return _closing(413, "The form is too large.")
        if not self._wrong.left(host):
            return _closing(429, "Too many wrong tokens.")
        token = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
        if not self._knows(token, host):
            return self._shut(wrong=True)
        answer = RedirectResponse("./", 303)
        answer.set_cookie(_COOKIE, token, httponly=True, samesite="strict", secure=self._tls)
        return answer

    def _shut(self, *, wrong: bool) -> Response:
        headers = {"WWW-Authenticate": "Bearer"}
        return Response(self._enter[wrong], 401, headers, media_type="text/html")

    def _knows(self, token: str | None, host: str) -> bool:
        """Tell whether a token is one of ours, and count it if it is not."""
        if self._access is None:
            return True
        if token is None:
            return False
        try:
            self._access.client([bearer(token)], "")
        except BadToken:
            self._wrong.take(host)
            return False
        return True

    async def _content(self) -> Mapping[str, tuple[str, bytes]]:
        """Return kind and content by path; however many ask, one thread looks."""
        async with self._one:
            return await asyncio.to_thread(self._look)

    def _look(self) -> Mapping[str, tuple[str, bytes]]:
        parts = self._board.parts()
        if parts is not self._parts:
            facts, online = self._board.facts, self._board.online
            name, plan = facts.run.folder.name, facts.plan
            state = facts.to_json() | {"sites_online": online}
            self._made = {
                "/": ("text/html", render("live.html", name=name, plan=plan, parts=parts).encode()),
                "/live.js": ("text/javascript", script().encode()),
                "/parts.json": ("application/json", json.dumps(parts).encode()),
                "/state.json": ("application/json", json.dumps(state).encode()),
                "/metrics": ("text/plain", exposition(facts, online)),
            }
            self._parts = parts
        return self._made


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _token_of(scope: Scope) -> str | None:
    """Return the token that a request has, of its header or else of its cookie."""
    if headers := _all(scope, b"authorization"):
        kind, _, token = headers[0].partition(" ")
        return token if len(headers) == 1 and kind == "Bearer" else ""
    return cookie_parser("; ".join(_all(scope, b"cookie"))).get(_COOKIE)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """Read a form; None if it is too large, of which no more than that is read."""
    said = _all(scope, b"content-length")
    if said and (not said[0].isdecimal() or int(said[0]) > _LARGEST_FORM):
        return None
    body = b""
    while len(body) <= _LARGEST_FORM:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body if len(body) <= _LARGEST_FORM else None


def _closing(status: int, text: str) -> Response:
    """Return a refusal that ends the connection."""
    return Response(text, status, {"Connection": "close"}, media_type="text/plain")


@contextmanager
def live_page(
    board: LiveState,
    address: str,
    *,
    tokens: dict[str, str] | None = None,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Serve the page for the length of a block, in a thread; yield its address.

    Parameters
    ----------
    address
        HOST:PORT; port 0 takes a free one, and so does a port of loopback that is taken.
    tokens
        By client; needed where other machines can reach the address, and so is ``tls``.
    tls
        Certificate chain and key, PEM files.

    Raises
    ------
    ConfigError
        If the address is no address, or other machines can reach it without TLS or tokens.
    ServiceError
        If it cannot be listened on.
    """
    host, port = split_address(address)
    require_guard(host, tls=tls is not None, tokens=tokens is not None, insecure=False)
    door = _listening(host, port)
    hosts = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else ["*"]
    app = page_app(board, hosts, None if tokens is None else Access(tokens), tls=tls is not None)
    config = uvicorn.Config(
        app,
        loop="asyncio",  # its sockets are asked to accept, which those of others are not
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
    thread = threading.Thread(target=server.run, args=([door],), name="live page", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while thread.is_alive() and not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    if not server.started:
        door.close()
        raise _unserved(host, port)
    try:
        yield f"{'http' if tls is None else 'https'}://{host}:{door.getsockname()[1]}/"
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
