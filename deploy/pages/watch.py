"""`dppm watch RUN`, and the page that `dppm simulate --watch` and `dppm server run` show."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.pages.live_state import LiveState
from deploy.show import console, print_json
from dppm_model.errors import ConfigError, ServiceError
from dppm_model.run import Run
from sampler.service.access import read_tokens


def watch(
    run: Path,
    address: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """`dppm watch RUN`: show a run until Ctrl-C, from a terminal other than the one that trains it.

    Raises as `live_page`, `read_tokens` and `RunSummary.of` do.
    """
    from deploy.pages.live_server import live_page  # a web framework, which no other command needs

    live = LiveState(Run(run))
    tls = tls_of(tls_cert, tls_key)
    tokens = None if token_file is None else read_tokens(token_file)
    with live_page(live, address, tokens=tokens, tls=tls) as page:
        if as_json:
            print_json({"address": page})
            sys.stdout.flush()  # a script may be waiting for it
        console.print(f"{run} at {page} until Ctrl-C", soft_wrap=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("Stopped.")


def tls_of(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return both files of TLS, or None for neither; `ConfigError` if one is missing."""
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key belong together.", "Give both or neither.")
    for path in filter(None, (certificate, key)):
        if not path.is_file():
            raise ConfigError(f"{path} is not a file.", "Name a PEM file.")
    return None if certificate is None or key is None else (certificate, key)


@contextmanager
def beside(
    run: Run,
    address: str | None,
    *,
    token_file: Path | None = None,
    tls: tuple[Path, Path] | None = None,
    count_online: Callable[[], int | None] = lambda: None,
) -> Iterator[None]:
    """Show a run for the length of a block; training continues if the page cannot be served.

    Without an address it shows nothing. Other parameters are those of `live_page` and `LiveState`;
    their `ConfigError` is raised before the block begins.
    """
    with ExitStack() as stack:
        if address is not None:
            from deploy.pages.live_server import live_page

            tokens = None if token_file is None else read_tokens(token_file)
            live = LiveState(run, count_online)
            try:
                page = live_page(live, address, tokens=tokens, tls=tls)
                console.print(f"watch it at {stack.enter_context(page)}", soft_wrap=True)
            except ServiceError as error:
                console.print(f"{error.message} {error.hint} Training continues.", soft_wrap=True)
        yield
