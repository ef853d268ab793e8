"""The process that runs an approved bundle: loads it once, then forks for every message.

    python -m deploy.kit.worker SITE FOLDER DIGEST ADDRESS       (task tokens on standard input)

Flower starts a new Python for every message, which takes seconds to import torch and compute the
plan's costs, for milliseconds of work. This process does that once; forks inherit it and forget
everything else when they end. Without a FOLDER it answers every message with a refusal.

Flower's own code does the communication (`deploy.flower_adapter.answer_task`), but instead of
installing and importing the bundle that came, it checks that it is the one loaded here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.flower_adapter import answer_task

BUNDLE = "DPPM_BUNDLE"  # `client.approvals` compares it with the approval
PACKAGES = {"client", "server", "dppm_model"}


class BundleRefused(Exception):
    """A refusal; the server gets only its name."""


def load(site: Path, folder: Path) -> Any:
    """Import the ClientApp of an unpacked bundle, never other packages of the same names."""
    sys.path.insert(0, str(folder))
    import client.app

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES and (
            not module.__file__ or not Path(module.__file__).is_relative_to(folder)
        ):
            raise BundleRefused(f"{name} was not imported from the bundle in {folder}.")
    try:
        client.app.preload(site)
    except Exception:  # each message is then refused
        traceback.print_exc()
    return client.app.app


def only(digest: str) -> Callable[..., None]:
    """Return a replacement for Flower's installation, which does nothing or refuses."""

    def install(content: bytes, **_: Any) -> None:
        if not digest or hashlib.sha256(content).hexdigest() != digest:
            raise BundleRefused

    return install


def main(site: str, folder: str, digest: str, address: str) -> None:
    """Serve tokens until standard input ends."""
    os.environ[BUNDLE] = digest
    app = load(Path(site), Path(folder)) if folder else None
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the forks
    for token in sys.stdin:
        if os.fork():
            continue
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = answer_task(token.strip(), address, only(digest), app)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    with contextlib.suppress(ChildProcessError):  # forks end with this process, so wait for them
        while True:
            os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
