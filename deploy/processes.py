"""Start other programs with an environment and ports, and make sure none outlives its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dppm_model.errors import FederationError

Door = tuple[str, int]  # address and port that a program listens on
_START_SECONDS = 60
_STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def environment(home: Path) -> dict[str, str]:
    """Return an environment for Flower's commands, with its files in ``home`` and no telemetry."""
    own = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a site without a share has cuda:1
        "RAY_worker_niceness": "0",  # see sampler.pool: Ray would lower the sites' priority
        "PYTHONUNBUFFERED": "1",
    }
    # Flower's commands start each other by name.
    path = f"{tool('')}{os.pathsep}{os.environ['PATH']}"
    return os.environ | own | {"PATH": path}


def tool(name: str) -> str:
    """Return the path of a command of this installation, not another one on the PATH."""
    return str(Path(sys.executable).parent / name)


def command(name: str, *words: str, **options: object) -> list[str]:
    """Return a command of this installation: its words, and ``--key value`` for each option."""
    flags = [(f"--{key.replace('_', '-')}", str(value)) for key, value in options.items()]
    return [tool(name), *words, *(word for flag in flags for word in flag)]


def free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a port of this machine is in use."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: IO[bytes],
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a command in its own session; the kernel kills it if this thread dies."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    assert _libc
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a command and its session, then kill what remains."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            if number == signal.SIGTERM:
                time.sleep(0.5)  # for the rest of the session


def end_leftovers(sessions: Path, folder: Path) -> None:
    """End the rest of sessions whose parent was killed (nginx workers outlive their master).

    ``sessions`` is the file that `remember` writes. Only processes that run in ``folder`` are
    ended, since session numbers are reused.
    """
    known = set(sessions.read_text().split()) if sessions.is_file() else set()
    deadline = time.monotonic() + _STOP_SECONDS
    while (left := list(_of_sessions(known, folder))) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)  # until they are gone, and their ports free
    sessions.unlink(missing_ok=True)


def _of_sessions(known: set[str], folder: Path) -> Iterator[int]:
    """Yield the processes of some sessions that run in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            number = int(process.name)
            in_folder = (process / "cwd").readlink().is_relative_to(folder)
            if in_folder and str(os.getsid(number)) in known:
                yield number


def remember(sessions: Path, process: subprocess.Popen[bytes]) -> None:
    """Record the session of a started command for `end_leftovers`."""
    with sessions.open("a") as file:
        file.write(f"{process.pid}\n")


@dataclass
class Supervised:
    """A program that runs for the length of a block; see `start`.

    Attributes
    ----------
    door
        Address and port that it listens on once it is up; with None, nothing waits for it.
    sessions
        File that records its session for `end_leftovers`, or None.
    deaths
        Number of restarts.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    output: IO[bytes]
    door: Door | None = None
    sessions: Path | None = None
    deaths: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Supervised:
        self._start()
        return self

    def _start(self) -> None:
        """Start it and wait until it listens; `FederationError` if it does not in a minute."""
        self.process = start(self.command, self.folder, self.environment, self.output)
        if self.sessions:
            remember(self.sessions, self.process)
        deadline = time.monotonic() + _START_SECONDS
        while self.door and not listens(self.door[1], self.door[0]):
            if time.monotonic() > deadline or self.process.poll() is not None:
                stop(self.process)
                raise FederationError(f"{self.name} did not start.", f"Read {self.output.name}.")
            time.sleep(0.1)

    def revive(self) -> bool:
        """Restart it if it has died; return whether it had."""
        if self.process.poll() is None:
            return False
        self.deaths += 1
        stop(self.process)  # what is left of its session
        time.sleep(min(2 * self.deaths, 30))
        self._start()
        return True

    def __exit__(self, *_: object) -> None:
        stop(self.process)
