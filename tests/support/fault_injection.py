"""Processes that die, really: forked, and killed at a point or at a moment."""

import contextlib
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dppm_model.files as files

POINTS = ("begun", "written", "synced", "renamed")  # of `write_bytes`, after each of which to die

# What a crash may leave of a last line.
TORN = [
    b"",
    b'{"b',
    b'{"b": 2}',
    b'{"b": 2}\r',
    b"\x00" * 5000,
    b"\xff\xfe",
    "é".encode()[:1],
    "{}\u2028".encode(),
    "{}\u0085\x0b\x0c\x1c".encode(),
    b"x" * 200_000,
]


def forked(work: Callable[[], object]) -> int:
    """Do ``work`` in a forked process, silently; return its number at once."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        sys.stdout = sys.stderr = io.StringIO()
        found = work()
        code = found if isinstance(found, int) else 0
    finally:
        sys.stderr.flush()  # it may be a pipe by now
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a forked process and return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(work: Callable[[], object], seconds: float) -> int:
    """Do ``work`` in a process that is killed after some seconds, if it has not ended before."""
    child, deadline = forked(work), time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return ended(child)


@contextlib.contextmanager
def dying(point: str, nth: int, suffix: str = "") -> Iterator[None]:
    """Die in the nth `write_bytes` of a file with this suffix, right after a point of it."""
    left = [nth]
    own, write_all, fsync, sync = files._own, files.write_all, os.fsync, files.sync

    def reached(now: str) -> None:
        if now == point and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def begun(path: Path) -> Iterator[int]:
        left[0] -= path.name.endswith(f"{suffix}.new")
        with own(path) as handle:
            reached("begun")
            yield handle

    def written(handle: int, content: bytes) -> None:
        write_all(handle, content)
        reached("written")

    def synced(handle: int) -> None:
        fsync(handle)
        reached("synced")

    def renamed(folder: Path) -> None:
        reached("renamed")
        sync(folder)

    try:
        files._own, files.write_all, files.sync = begun, written, renamed
        os.fsync = synced  # type: ignore[assignment]
        yield
    finally:
        files._own, files.write_all, os.fsync, files.sync = own, write_all, fsync, sync


def left_over(folder: Path) -> list[Path]:
    """List what only a writer or a maker that is alive may have in a folder."""
    return [p for p in folder.rglob(".*") if p.name.endswith(".new") or p.name == ".making"]


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let this process write no file beyond a size: the machine then says that it is too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def short_writes(monkeypatch: pytest.MonkeyPatch, fail_after: int | None, step: int = 3) -> None:
    """Let `os.write` take few bytes at a time, and fail after some in all."""
    done, write = [0], os.write

    def few(handle: int, content: bytes) -> int:
        if fail_after is not None and done[0] >= fail_after:
            raise OSError(28, "No space left on device")
        most = step if fail_after is None else min(step, fail_after - done[0])
        wrote = write(handle, bytes(content[:most]))
        done[0] += wrote
        return wrote

    monkeypatch.setattr("os.write", few)
