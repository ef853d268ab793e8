"""Control of a SuperLink's nodes and runs by Flower's command line."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from deploy.kit.enrolment import Enrolment
from deploy.processes import environment, tool
from dppm_model.errors import FederationError
from dppm_model.files import write_bytes, write_json
from dppm_model.folders import there
from dppm_model.reading import read_json, reading

_LIVE = ("pending", "starting", "running")
_LINK = "dppm"  # name of the connection in Flower's config.toml


class FlowerControl:
    """Client of a server's SuperLink; ``home`` is the folder of Flower's own files."""

    def __init__(self, home: Path) -> None:
        self._home, self._environment = home, environment(home)

    def connect(self, port: int, authority: Path) -> None:
        """Write the SuperLink's address to Flower's configuration."""
        link = {"address": f"127.0.0.1:{port}", "root-certificates": str(authority)}
        text = tomli_w.dumps({"superlink": {"default": _LINK, _LINK: link}})
        write_bytes(self._home / "config.toml", text.encode())

    def register(self, sites: Mapping[str, Enrolment]) -> None:
        """Register exactly these sites' node keys with the SuperLink."""
        path = self._home / "nodes.json"
        old = {}
        if there(path):
            with reading(path, FederationError, "Remove it: the sites are then registered again."):
                old = {**read_json(path)}
        alive = {str(n["node-id"]) for n in self._nodes() if n["status"] != "unregistered"}
        keys = {enrolment.node_key: site for site, enrolment in sites.items()}
        new = {key: node for key, node in old.items() if key in keys and node in alive}
        for key, site in keys.items():
            if key not in new:
                public = self._home / "key.pub"
                write_bytes(public, f"{key}\n".encode())
                found = self._ask("supernode", "register", str(public), _LINK, "--name", site)
                new[key] = str(found["node-id"])
                write_json(path, new)
        for node in alive - set(new.values()):
            self._ask("supernode", "unregister", node, _LINK)
        write_json(path, new)

    def online(self) -> int:
        """Return the number of connected SuperNodes."""
        return sum(node["status"] == "online" for node in self._nodes())

    def run(self, app: Path, settings: str) -> str:
        """Start a run, and return its number in Flower."""
        return str(self._ask("run", str(app), _LINK, "--run-config", settings)["run-id"])

    def stop(self, run: str) -> None:
        """Stop a run, unless it ends by itself first."""
        try:
            self._ask("stop", run, _LINK)
        except FederationError:
            if run in self.live_runs():
                raise

    def live_runs(self) -> set[str]:
        """Return the numbers of the runs that Flower considers alive."""
        runs = self._ask("ls", _LINK)["runs"]
        return {str(run["run-id"]) for run in runs if run["status"].startswith(_LIVE)}

    def _nodes(self) -> list[dict[str, Any]]:
        return list(self._ask("supernode", "ls", _LINK)["nodes"])

    def _ask(self, *arguments: str) -> Any:
        """Run a command and read its JSON; `FederationError` if it fails."""
        done = subprocess.run(
            [tool("flwr"), *arguments, "--format", "json"],
            cwd=self._home,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        with contextlib.suppress(ValueError):
            found = json.loads(done.stdout[done.stdout.index("{") :])
            if found.get("success"):
                return found
        said = (done.stdout + done.stderr).strip()[-300:]
        raise FederationError(
            f"`flwr {' '.join(arguments[:2])}` failed: {said}", "Read the server's logs."
        )
