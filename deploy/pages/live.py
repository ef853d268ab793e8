"""The live page of a run: a small web server beside the training, which only reads its folder.

It listens on loopback unless told otherwise, and then only with TLS and tokens. It cannot change
or stop anything, and a page that cannot be served never stops a training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from deploy.pages.board import Board
from deploy.pages.metrics import exposition
from deploy.pages.render import render, script
from deploy.processes import free_port, listens
from dppm_model.errors import BadToken, DppmError, ServiceError
from sampler.service.access import Access, bearer, is_loopback, require_guard, split_address

_COOKIE = "dppm-token"
_START_SECONDS = 10.0
_LONGEST_FORM = 4096  # bytes
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_app(board: Board, hosts: list[str], access: Access | None) -> FastAPI:
    """Build the web application.

    Parameters
    ----------
    hosts
        Names under which a browser may ask for it: others are refused, so that no other page can
        read this one by a name of its own that leads here (DNS rebinding).
    access
        Knows the tokens; None lets everyone in who can connect.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    @app.middleware("http")
    async def guard(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.url.path != "/enter" and not _welcome(request, access):
            answer: Response = HTMLResponse(render("enter.html", wrong=False), 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
        else:
            answer = await proceed(request)
        answer.headers.update(_HEADERS)
        return answer

    @app.exception_handler(DppmError)
    def tell(_: Request, error: DppmError) -> Response:
        return JSONResponse({"cause": error.cause, "cure": error.cure}, 503)

    @app.get("/")
    def page() -> HTMLResponse:
        parts = board.parts()
        facts = board.facts
        return HTMLResponse(
            render("live.html", name=facts.run.folder.name, plan=facts.plan, parts=parts)
        )

    @app.post("/enter")
    async def enter(request: Request) -> Response:
        form = parse_qs((await request.body())[:_LONGEST_FORM].decode(errors="replace"))
        token = form.get("token", [""])[0]
        if not _known(access, token):
            return HTMLResponse(render("enter.html", wrong=True), 401)
        answer = RedirectResponse("./", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(_COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.get("/live.js")
    def program() -> Response:
        return Response(script(), media_type="text/javascript")

    @app.get("/parts.json")
    def parts() -> dict[str, str]:
        return board.parts()

    @app.get("/state.json")
    def state() -> dict[str, Any]:
        board.parts()
        return board.facts.summary() | {"sites_online": board.online}

    @app.get("/metrics")
    def metrics() -> Response:
        board.parts()
        return Response(exposition(board.facts, board.online), media_type="text/plain")

    return app


def _welcome(request: Request, access: Access | None) -> bool:
    given = request.cookies.get(_COOKIE)
    if given is not None:
        return _known(access, given)
    header = request.headers.get("authorization", "")
    return _known(access, header.removeprefix("Bearer "))


def _known(access: Access | None, token: str) -> bool:
    if access is None:
        return True
    try:
        access.client([bearer(token)], "")
    except BadToken:
        return False
    return True


@contextmanager
def live_page(
    board: Board,
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
    if port == 0 or (is_loopback(host) and listens(port, host)):
        port = free_port()
    hosts = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(host) else ["*"]
    app = page_app(board, hosts, None if tokens is None else Access(tokens))
    config = uvicorn.Config(
        *(app, host, port),
        log_level="critical",
        access_log=False,
        ssl_certfile=tls and tls[0],
        ssl_keyfile=tls and tls[1],
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run_quietly, name="live page", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while thread.is_alive() and not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    if not server.started:
        raise ServiceError(
            f"The page cannot be served at {host}:{port}.", "Name another address, or a free port."
        )
    try:
        yield f"{'http' if tls is None else 'https'}://{host}:{port}/"
    finally:
        server.should_exit = True
        thread.join(5)


class _Server(uvicorn.Server):
    """A server in a thread: a port that is taken ends the thread, not the program."""

    def run_quietly(self) -> None:
        try:
            self.run()
        except SystemExit:
            self.started = False
