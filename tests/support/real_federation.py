"""A federation of real processes on this machine: one server, a few sites, and their operators."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.processes import end_leftovers
from dppm_model.records.partition import partition
from dppm_model.records.shards import Records
from dppm_model.records.writing import write_records
from dppm_model.run import Run
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
# For tests with real hosts.
REAL = [
    pytest.mark.slow,
    pytest.mark.flower,
    pytest.mark.skipif(
        shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"
    ),
]
# What an operator announces of the tiny data set, and a model of its size.
TINY_FACTS = [
    "data=tiny",
    "privacy.unit=record",
    "facts.shape=[1,8,8]",
    "facts.classes=2",
    "facts.records=600",
]
TINY_MODEL = [option for option in TINY if option.startswith("model.")] + ["privacy.epsilon=8"]


def deal(records: Records, sites: int, folder: Path) -> list[Path]:
    """Write a shard folder for every site."""
    parts = partition(np.asarray(records.labels), sites, seed=0, scheme="even")
    shards = []
    for site, part in enumerate(parts):
        own = records.select(part)
        shards.append(folder / f"shard-{site}")
        write_records(
            shards[-1],
            own.images,
            own.labels,
            name=f"shard-{site}",
            split="train",
            classes=records.manifest.classes,
        )
    return shards


class Hosts:
    """The machines of a federation, and what their operators type.

    Parameters
    ----------
    folder
        Everything is in it: ``fed`` (server), ``site-0``, …, and a log of each process.
    shards
        One a site.
    address
        ``host:port`` of the proxy.
    """

    def __init__(self, folder: Path, shards: Sequence[Path], address: str) -> None:
        self.folder, self.shards, self.address = folder, shards, address
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def fed(self) -> Path:
        return self.folder / "fed"

    def site(self, number: int) -> Path:
        return self.folder / f"site-{number}"

    def run(self, name: str) -> Run:
        return Run(self.fed / "runs" / name)

    def _command(self, arguments: Sequence[object]) -> list[str]:
        return [sys.executable, "-m", "deploy.cli", *map(str, arguments)]

    def _ran(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(arguments),
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def type(self, *arguments: object, code: int = 0, **options: object) -> str:
        """Run a command to its end, expect its exit code, and return what it printed."""
        flags = (f"--{key.replace('_', '-')}={value}" for key, value in options.items())
        done = self._ran(*arguments, *flags)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{arguments}: {done.returncode}, not {code}\n{said}"
        return said

    def ask(self, *arguments: object) -> Any:
        """Run a command with --json and return what it printed on standard output."""
        return json.loads(self._ran(*arguments, "--json").stdout)

    def start(self, host: str, *arguments: object) -> None:
        """Run a command in the background, one a host."""
        with (self.folder / f"{host}.log").open("ab") as log:
            self.running[host] = subprocess.Popen(
                self._command(arguments),
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, host: str) -> str:
        path = self.folder / f"{host}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, host: str) -> None:
        """Kill -9 the command of a host; the kernel takes its children with it."""
        self.running.pop(host).kill()

    def ended(self, host: str, seconds: float) -> int:
        """Wait for a host's command and return its exit code."""
        process = self.running[host]
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{host} runs on:\n{self.said(host)[-3000:]}") from None
        del self.running[host]
        return code

    def stop(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(60)
        self.running.clear()
        end_leftovers(self.fed / "flower" / "sessions", self.fed)

    # What operators type, in the order of deploy/README.md

    def found(self) -> None:
        """Make the server, and let sites enrol."""
        port = self.address.rpartition(":")[2]
        more = {"address": self.address, "listen": f"127.0.0.1:{port}"}
        self.type("server", "init", self.fed, name="demo", superlink_port=int(port) + 1, **more)
        for number in range(len(self.shards)):
            self.enrol(number)

    def init_site(self, site: Path, records: Path, limit: float = 100.0) -> None:
        limits = {"max_epsilon_secure_sum": limit, "max_epsilon_site": 1000, "delta": "1e-5"}
        invitation = self.fed / "invitation.json"
        own = {"invitation": invitation, "name": site.name, "records": records}
        self.type("site", "init", site, "--yes", **own, **limits)

    def enrol(self, number: int) -> None:
        site = self.site(number)
        self.init_site(site, self.shards[number])
        self.type("server", "enrol", self.fed, site / "enrolment.json", "--yes")

    def announce(self, name: str, *overrides: str) -> None:
        self.type("server", "announce", self.fed, name, *overrides)

    def approve(self, name: str, *sites: int) -> None:
        for number in sites:
            paper = self.run(name).folder / "announcement.zip"
            self.type("site", "approve", self.site(number), paper, "--yes")

    def serve(self, name: str) -> None:
        self.start("server", "server", "run", self.fed, name)

    def answer(self, *sites: int) -> None:
        for number in sites:
            self.start(self.site(number).name, "site", "run", self.site(number))

    def wait_for_round(self, name: str, number: int, seconds: float = 300) -> None:
        """Wait until a number of rounds are done."""
        deadline = time.monotonic() + seconds
        while len(self.run(name).rounds()) < number:
            server = self.running.get("server")
            assert server and server.poll() is None, self.said("server")[-3000:]
            assert time.monotonic() < deadline, f"round {number} is not done\n" + self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(
            f"== {path}\n" + path.read_text(errors="replace")[-2000:]
            for path in sorted(self.folder.glob("*.log"))
            + sorted(self.fed.glob("logs/*.log"))
            + sorted(self.folder.glob("site-*/flower/site.log"))
        )

    def process(self, command: str) -> int:
        """Return the process of this federation whose command line holds some words."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parts = path.with_name("environ").read_bytes()
            except OSError:
                continue
            if command in words and (
                str(self.folder) in words or str(self.folder).encode() in parts
            ):
                return int(path.parent.name)
        raise AssertionError(f"no process of {command}")
