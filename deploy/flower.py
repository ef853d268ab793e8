"""Start Flower's simulation runtime for one run: an own SuperLink, `flwr run`, and away again.

Three of Flower's habits are worked around here: it would install the app's dependencies anew for
every run, its workers import from the folder that the SuperLink was started in before the bundle,
and a bundle takes every JSON, Markdown and YAML file it finds. So the SuperLink starts in an empty
folder, with installation off, and the app is a staged copy of three packages and a pyproject.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import client
import dppm_model
import server
from dppm_model.errors import FederationError

PACKAGES = {"server": server, "client": client, "dppm_model": dppm_model}
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}
_START_SECONDS = 60


def pyproject() -> Path:
    """Find the project's own pyproject.toml: beside the packages, or inside an installed wheel."""
    for path in (
        Path(__file__).parent / "pyproject.toml",
        Path(__file__).parents[1] / "pyproject.toml",
    ):
        if path.is_file() and "flwr" in tomllib.loads(path.read_text()).get("tool", {}):
            return path
    raise FederationError("The Flower app's pyproject.toml is missing.", "Install dppm again.")


def stage_app(folder: Path) -> Path:
    """Copy what a site runs, and nothing else, to ``folder/dppm``."""
    app = folder / "dppm"
    for name, package in PACKAGES.items():
        shutil.copytree(
            Path(str(package.__file__)).parent,
            app / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    shutil.copy(pyproject(), app / "pyproject.toml")
    return app


def run_flower(
    app: Path,
    *,
    nodes: int,
    run_config: dict[str, str],
    log: Path,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run an app with ``nodes`` virtual SuperNodes on this machine and wait for its end.

    Parameters
    ----------
    app
        Folder with a pyproject.toml (`stage_app`).
    run_config
        Values for keys of ``[tool.flwr.app.config]``.
    log
        Flower's and the apps' output goes here.
    tick
        Called a few times a second while waiting.

    Raises
    ------
    FederationError
        If the SuperLink does not start or the run does not finish.
    """
    with tempfile.TemporaryDirectory(prefix="dppm-flower-") as temporary, log.open("ab") as output:
        home = Path(temporary)
        environment = os.environ | ENVIRONMENT | {"FLWR_HOME": str(home)}
        # Flower's commands start one another by name.
        environment["PATH"] = f"{_tool('')}{os.pathsep}{environment['PATH']}"
        port = _free_port()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "127.0.0.1:{port}"\n'
            "insecure = true\n"
        )
        (home / "empty").mkdir()
        superlink = [
            *(_tool("flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1"),
            *("--port", str(port), "--disable-runtime-dependency-installation"),
            *("--database", str(home / "state.db")),
        ]
        with _process(superlink, home / "empty", environment, output) as link:
            _wait_for_port(port, link, log)
            settings = " ".join(f"{key}={_toml(value)}" for key, value in run_config.items())
            command = [
                *(_tool("flwr"), "run", str(app.resolve()), "local", "--stream"),
                *("--federation-config", f"num-supernodes={nodes} client-resources-num-cpus=1"),
                *("--run-config", settings),
            ]
            with _process(command, home, environment, output) as run:
                while run.poll() is None:
                    tick()
                    time.sleep(0.2)
                if run.returncode:
                    raise FederationError(
                        f"`flwr run` ended with code {run.returncode}.", f"Read {log}."
                    )


def _toml(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tool(name: str) -> str:
    """Return Flower's command of this very environment, not another one on the PATH."""
    return str(Path(sys.executable).parent / name)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise FederationError("Flower's SuperLink did not start.", f"Read {log}.")


@contextlib.contextmanager
def _process(
    command: list[str], folder: Path, environment: dict[str, str], output: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command in its own session and end the whole session afterwards, Ray included."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=output,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                if number == signal.SIGTERM:
                    time.sleep(0.5)
