"""A site's code allowlist: takes tasks from its SuperNode and lets approved bundles answer them.

It replaces Flower's SuperExec. A bundle runs only if its digest is approved (`client.approvals`)
and its unpacked files have not changed since; this is checked for every task, before anything in
the bundle is imported.
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

_WORKER = (sys.executable, "-m", "deploy.kit.worker")


def bundle_file(folder: Path, digest: str) -> Path:
    """Return the path of an approved bundle at a site."""
    return folder / "bundles" / f"{digest}.fab"


def bundle_folder(folder: Path, digest: str) -> Path:
    """Return the folder with the files of an approved bundle that run at a site."""
    return folder / "bundles" / digest


def is_whole(folder: Path, digest: str) -> bool:
    """Return whether a bundle is present and unpacked exactly as approved.

    It needs a regular file of that digest, and beside it a folder with exactly the files of the
    bundle's site part, as regular files, and exactly the folders that these need. Anything else in
    it, such as a link, a FIFO or an empty folder, makes it incomplete.
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
    """List the real folders of a tree, including the root, and all other entries."""
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
    """Return the bundles of approved runs; an empty set if an approval is damaged."""
    try:
        return {approval.bundle for approval in read_approvals(folder)} - {""}
    except DppmError:
        return set()


class AllowlistExecutor:
    """Executor of the tasks of a site's SuperNode; see `TaskQueue` for ``address`` and ``secret``.

    ``environment`` and ``output`` are for the processes that run bundles.
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
        # A compiled file beside the bundle's own would be unapproved code.
        self._environment = {**environment, "PYTHONDONTWRITEBYTECODE": "1"}
        self._output = output
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._retired: list[subprocess.Popen[bytes]] = []
        self._stamps: dict[str, int] = {}  # the approvals that each worker has read
        self._tasks = TaskQueue(address, secret)

    def preload(self) -> None:
        """Load approved bundles, so that the first message does not have to wait."""
        for digest in _approved(self._folder):
            if is_whole(self._folder, digest):
                self._worker(digest)

    def step(self) -> bool:
        """Pass a task, if there is one, to the process that answers it; False if there is none."""
        task = self._tasks.take()
        if task is None:
            return False
        digest = task.bundle
        allowed = digest in _approved(self._folder) and is_whole(self._folder, digest)
        facts = {"flower_run": str(task.run), "bundle": digest, "approved": allowed}
        audit_log.note(self._folder, "task", **facts)
        worker = self._worker(digest if allowed else "")
        assert worker.stdin
        with contextlib.suppress(OSError):  # it just died: Flower will hand out the task again
            worker.stdin.write(task.token.encode() + b"\n")
            worker.stdin.flush()
        return True

    def _worker(self, digest: str) -> subprocess.Popen[bytes]:
        """Return the process that runs this bundle, starting it if needed.

        It is restarted if approvals have changed, so that the costs of new plans are computed.
        """
        stamp = (self._folder / "approvals").stat().st_mtime_ns if digest else 0
        worker = self._workers.get(digest)
        if worker and self._stamps[digest] != stamp:
            assert worker.stdin
            worker.stdin.close()  # it ends after its forks
            self._retired = [w for w in (*self._retired, worker) if w.poll() is None]
            worker = None
        if worker is None or worker.poll() is not None:
            self._stamps[digest] = stamp
            unpacked = str(bundle_folder(self._folder, digest)) if digest else ""
            worker = self._workers[digest] = start(
                [*_WORKER, str(self._folder), unpacked, digest, self._address],
                self._folder / "flower" / "empty",
                self._environment,
                self._output,
                stdin=subprocess.PIPE,
            )
        return worker

    def close(self) -> None:
        """Stop the processes."""
        for worker in (*self._workers.values(), *self._retired):
            stop(worker)
        self._tasks.close()
