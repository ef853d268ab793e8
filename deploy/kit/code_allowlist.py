"""A site's allowlist of code: takes tasks from its SuperNode, lets approved bundles answer them.

It stands where Flower's SuperExec would. A bundle runs only if its digest is that of an approval
(`client.approvals`) and its files, unpacked when it was approved, still are what was approved; that
is checked for every task, before anything of the bundle is imported.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from client import audit_log
from client.approvals import read_approvals
from deploy.flower_adapter import TaskQueue
from deploy.kit.bundle import digest_of, part_of
from deploy.processes import start, stop
from dppm_model.errors import DppmError
from dppm_model.reading import read_bytes


def bundle_file(folder: Path, digest: str) -> Path:
    """Return where a site keeps an approved bundle."""
    return folder / "bundles" / f"{digest}.fab"


def bundle_folder(folder: Path, digest: str) -> Path:
    """Return where a site keeps those files of an approved bundle that run at a site."""
    return folder / "bundles" / digest


def is_whole(folder: Path, digest: str) -> bool:
    """Say whether the bundle with this digest is there, and unpacked as it was approved.

    Whole are: a regular file of that digest, and beside it a folder with regular files of exactly
    the names and content of its site's part, in exactly the folders that these need. Anything else
    there, a link, a FIFO or an empty folder, and it is not whole.
    """
    try:
        bundle = read_bytes(bundle_file(folder, digest), follow=False)
        if digest_of(bundle) != digest:
            return False
        files = part_of(bundle, "site")
        unpacked = bundle_folder(folder, digest)
        needed = {parent for name in files for parent in Path(name).parents}
        return _tree(unpacked) == (needed, set(map(Path, files))) and all(
            read_bytes(unpacked / name, follow=False) == content for name, content in files.items()
        )
    except (OSError, DppmError):
        return False


def _tree(root: Path) -> tuple[set[Path], set[Path]]:
    """List the real folders, the root among them, and all other names of a tree."""
    folders: set[Path] = set()
    others: set[Path] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        if path.is_symlink() or not path.is_dir():
            others.add(path.relative_to(root))
        else:
            folders.add(path.relative_to(root))
            waiting += path.iterdir()
    return folders, others


def _approved(folder: Path) -> set[str]:
    """Return the bundles of approved runs; none if an approval is damaged."""
    try:
        return {approval.bundle for approval in read_approvals(folder)} - {""}
    except DppmError:
        return set()


class AllowlistExecutor:
    """Takes tasks from one SuperNode.

    Parameters
    ----------
    folder
        The site's.
    address
        ``host:port`` of the SuperNode's Runtime API, on this machine.
    secret
        Shared with the SuperNode, so that no other program of this machine takes its tasks.
    environment, output
        Of the processes that run bundles.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        secret: bytes,
        environment: Mapping[str, str],
        output: IO[bytes],
    ) -> None:
        self._folder, self._address = folder, address
        # A compiled file beside the bundle's own would be one that nobody approved.
        self._environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
        self._output = output
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._retired: list[subprocess.Popen[bytes]] = []
        self._stamps: dict[str, int] = {}  # of the approvals that a worker has read
        self._tasks = TaskQueue(address, secret)

    def preload(self) -> None:
        """Load what is approved, so that the first message need not wait for it."""
        for digest in _approved(self._folder):
            if is_whole(self._folder, digest):
                self._worker(digest)

    def step(self) -> bool:
        """Take a task if there is one and have it answered; say whether there was."""
        task = self._tasks.take()
        if task is None:
            return False
        digest = task.bundle
        allowed = digest in _approved(self._folder) and is_whole(self._folder, digest)
        audit_log.note(
            self._folder,
            "task",
            flower_run=str(task.run),
            bundle=digest,
            approved=allowed,
        )
        worker = self._worker(digest if allowed else "")
        assert worker.stdin
        with contextlib.suppress(OSError):  # it died just now: Flower hands the task out again
            worker.stdin.write(task.token.encode() + b"\n")
            worker.stdin.flush()
        return True

    def _worker(self, digest: str) -> subprocess.Popen[bytes]:
        """Return the process that runs this bundle, started if need be.

        It is started again if there are other approvals: a new plan's costs have to be computed.
        """
        stamp = (self._folder / "approvals").stat().st_mtime_ns if digest else 0
        worker = self._workers.get(digest)
        if worker and self._stamps[digest] != stamp:
            assert worker.stdin
            worker.stdin.close()  # it ends when its forks have
            self._retired = [w for w in (*self._retired, worker) if w.poll() is None]
            worker = None
        if worker is None or worker.poll() is not None:
            self._stamps[digest] = stamp
            unpacked = str(bundle_folder(self._folder, digest)) if digest else ""
            worker = self._workers[digest] = start(
                [
                    *(sys.executable, "-m", "deploy.kit.worker", str(self._folder)),
                    *(unpacked, digest, self._address),
                ],
                self._folder / "flower" / "empty",
                self._environment,
                self._output,
                stdin=subprocess.PIPE,
            )
        return worker

    def close(self) -> None:
        """End the processes."""
        for worker in (*self._workers.values(), *self._retired):
            stop(worker)
        self._tasks.close()
