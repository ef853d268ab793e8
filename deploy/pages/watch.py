"""`dppm watch RUN`, and the page that `dppm simulate --watch` and `dppm server run` show."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.pages.board import Board
from deploy.pages.live import DEFAULT_ADDRESS, live_page
from deploy.show import console, print_json
from dppm_model.errors import ConfigError
from dppm_model.run import Run
from sampler.service.access import read_tokens


def watch(arguments: argparse.Namespace) -> None:
    """Show a run until Ctrl-C, from another terminal than the one that trains it.

    Raises
    ------
    ConfigError
        If the address is none, or other machines can reach it without TLS and tokens.
    RunFolderError
        If the folder is no run folder.
    """
    board = Board(Run(arguments.run))
    tls = tls_of(arguments.tls_cert, arguments.tls_key)
    tokens = None if arguments.token_file is None else read_tokens(arguments.token_file)
    with live_page(board, arguments.address, tokens=tokens, tls=tls) as address:
        if arguments.json:
            print_json({"address": address})
            sys.stdout.flush()  # a script waits for it
        console.print(f"{arguments.run} at {address} until Ctrl-C", soft_wrap=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("Stopped.")


def tls_of(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return both files of TLS, or None for neither.

    Raises
    ------
    ConfigError
        If one is missing.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("--tls-cert and --tls-key belong together.", "Give both, or neither.")
    for path in filter(None, (certificate, key)):
        if not path.is_file():
            raise ConfigError(f"{path} is no file.", "Name a PEM file.")
    return None if certificate is None or key is None else (certificate, key)


@contextmanager
def beside(run: Run, *, show: bool) -> Iterator[None]:
    """Show a run on loopback for the length of a block, if asked to."""
    if not show:
        yield
        return
    with live_page(Board(run), DEFAULT_ADDRESS) as address:
        console.print(f"watch it at {address}", soft_wrap=True)
        yield
