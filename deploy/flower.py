"""Start Flower's simulation runtime for one run, with its own SuperLink, and stop it afterwards.

Flower would install the app's dependencies for every run; its workers import from the SuperLink's
working folder before the bundle; and a bundle takes every JSON, Markdown and YAML file that it
finds. So the SuperLink starts in an empty folder, with installation off, and the app is a copy of
only the files that its two parts import, with a pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import tomli_w
import torch

from deploy.import_closure import APPS, closure, installed
from deploy.processes import Supervised, command, environment, free_port
from dppm_model.errors import FederationError
from sampler.ray_folder import check_ray_folder


def pyproject() -> Path:
    """Find the project's pyproject.toml, beside the packages or inside an installed wheel."""
    for path in (folder / "pyproject.toml" for folder in Path(__file__).parents[:2]):
        if path.is_file() and "flwr" in tomllib.loads(path.read_text()).get("tool", {}):
            return path
    raise FederationError("The Flower app's pyproject.toml is missing.", "Install dppm again.")


def stage_app(folder: Path) -> Path:
    """Copy only the files that a site and the server import to ``folder/dppm``.

    Flower ships one bundle to both. A site runs only the part that `client.app` imports, and its
    operator reads only that.
    """
    app, files = folder / "dppm", installed()
    for modules in APPS.values():
        for name, content in closure(files, *modules).items():
            path = app / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    shutil.copy(pyproject(), app / "pyproject.toml")
    return app


def run_flower(
    app: Path,
    *,
    nodes: int,
    run_config: dict[str, str],
    log: Path,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run an app with ``nodes`` virtual SuperNodes on this machine and wait for its end.

    Raises `FederationError` if the SuperLink does not start or the run does not finish, and
    `ConfigError` if Ray would find no room for its sockets.

    ``app`` is a folder of `stage_app`; ``run_config`` sets keys of ``[tool.flwr.app.config]``; the
    output of Flower and the apps goes to ``log``; with device ``cuda``, Ray gives each site a share
    of all GPUs; ``tick`` is called a few times a second.
    """
    check_ray_folder()
    with tempfile.TemporaryDirectory(prefix="dppm-flower-") as temporary, log.open("ab") as output:
        home = Path(temporary)
        flowers = environment(home)
        port = free_port()
        local = {"address": f"127.0.0.1:{port}", "insecure": True}
        connections = {"superlink": {"default": "local", "local": local}}
        (home / "config.toml").write_text(tomli_w.dumps(connections))
        (home / "empty").mkdir()
        superlink = command(
            "flower-superlink",
            "--insecure",
            "--simulation",
            "--disable-runtime-dependency-installation",
            host="127.0.0.1",
            port=port,
            database=home / "state.db",
        )
        door, name = ("127.0.0.1", port), "Flower's SuperLink"
        with Supervised(name, superlink, home / "empty", flowers, output, door):
            settings = " ".join(f"{key}={toml_string(value)}" for key, value in run_config.items())
            flwr = command(
                "flwr",
                "run",
                str(app.resolve()),
                "local",
                "--stream",
                federation_config=f"num-supernodes={nodes} {resources(device, nodes)}",
                run_config=settings,
            )
            with Supervised("flwr run", flwr, home, flowers, output) as run:
                while run.process.poll() is None:
                    tick()
                    time.sleep(0.2)
                if code := run.process.returncode:
                    raise FederationError(f"`flwr run` ended with code {code}.", f"Read {log}.")


def resources(device: torch.device, nodes: int) -> str:
    """Return the resources that Ray reserves for a virtual site: a core, and a share of a GPU.

    As many sites answer at a time as without a GPU. Shares are slightly less than even, since
    Flower keeps them as float32 and divides by them.
    """
    share = 0.0
    if device == torch.device("cuda"):
        together = min(nodes, os.cpu_count() or 1)
        share = max(1, int(9990 * min(1.0, torch.cuda.device_count() / together))) / 10_000
    return f"client-resources-num-cpus=1 client-resources-num-gpus={share}"


def toml_string(value: str) -> str:
    """Quote a string for TOML, as `--run-config` requires."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
