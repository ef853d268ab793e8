"""`dppm server run`: keeps SuperLink, SuperExec and reverse proxy running, and plays one run.

A program that dies is restarted; so is the ServerApp, which resumes its round from the run folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploy.flower import toml_string
from deploy.kit.announcement import Announcement
from deploy.kit.bundle import files_of, write_files
from deploy.kit.control import FlowerControl
from deploy.kit.enrolment import split_address
from deploy.kit.federation import ServerSettings, announcement_file, enrolled
from deploy.kit.locks import alone
from deploy.processes import Door, Supervised, command, end_leftovers, environment, listens
from deploy.simulate import raise_reported
from dppm_model.errors import FederationError
from dppm_model.files import write_bytes
from dppm_model.run import Run

_TICK_SECONDS = 0.2
_LOOK_SECONDS = 10  # between two questions about a run to Flower itself
_MOST_DEATHS = 20  # restarts of the ServerApp before giving up


class ServerSupervisor:
    """The server's programs; ``say`` takes messages for the operator."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder.resolve(), say
        self.settings = ServerSettings.read(folder)
        self._home = self.folder / "flower"
        (self._home / "empty").mkdir(parents=True, exist_ok=True)
        self._environment = environment(self._home)
        self._flower = FlowerControl(self._home)
        self._programs: list[Supervised] = []
        self._looked = 0.0  # when Flower was last asked about the run

    @contextlib.contextmanager
    def up(self) -> Iterator[ServerSupervisor]:
        """Start everything, register the enrolled sites, and stop everything at the end."""
        secret = self._home / "superexec.secret"
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone(self.folder, "server"))
            write_bytes(secret, secrets.token_bytes(32))
            self._flower.connect(self.settings.superlink_port, self.folder / "tls" / "ca.crt")
            sessions = self._home / "sessions"
            end_leftovers(sessions, self.folder)
            programs = list(self._commands(secret))
            for *_, door in programs:
                if door and listens(door[1], door[0]):
                    raise FederationError(
                        f"port {door[1]} of this machine is in use.",
                        "Stop the program that listens there.",
                    )
            for name, words, folder, door in programs:
                log = stack.enter_context((self.folder / "logs" / f"{name}.log").open("ab"))
                program = Supervised(name, words, folder, self._environment, log, door, sessions)
                self._programs.append(stack.enter_context(program))
                if name == "superlink":  # before the proxy starts, so unknown nodes are refused
                    self._flower.register(enrolled(self.folder))
            yield self

    def _commands(self, secret: Path) -> Iterator[tuple[str, Sequence[str], Path, Door | None]]:
        tls, port = self.folder / "tls", self.settings.superlink_port
        empty = self._home / "empty"
        yield (
            "superlink",
            command(
                "flower-superlink",
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
                host="127.0.0.1",
                port=port,
                ssl_ca_certfile=tls / "ca.crt",
                ssl_certfile=tls / "server.crt",
                ssl_keyfile=tls / "server.key",
                database=self._home / "state.db",
                isolation="process",
                superexec_auth_secret_file=secret,
            ),
            empty,
            ("127.0.0.1", port),
        )
        yield (
            "superexec",
            command(
                "flower-superexec",
                root_certificates=tls / "ca.crt",
                runtime_api_address=f"127.0.0.1:{port}",
                superexec_auth_secret_file=secret,
            ),
            empty,
            None,
        )
        if self.settings.proxy:
            nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            if nginx is None:
                raise FederationError(
                    "nginx is not installed.",
                    "Install it, or set proxy = false in server.toml and serve nginx.conf.",
                )
            options = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
            host, listen = split_address("listen", self.settings.listen)
            host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)
            yield (
                "nginx",
                [nginx, "-p", str(self.folder), "-c", "nginx.conf", "-g", options],
                self.folder,
                (host, listen),
            )

    def train(self, run: Run, tick: Callable[[], None]) -> None:
        """Play a run to its end; raise the error that stopped it, as reported by the ServerApp.

        The caller holds the run's lock (`Run.alone`).
        """
        announcement = Announcement.read(announcement_file(run))
        app = run.folder.resolve() / "state" / "bundle" / "dppm"
        shutil.rmtree(app, ignore_errors=True)
        files = files_of(announcement.bundle)
        write_files({name: files[name] for name in files if not name.startswith(".info/")}, app)
        status = run.status
        for _ in range(_MOST_DEATHS):
            for old in self._flower.live_runs():
                self._flower.stop(old)
            status.unlink(missing_ok=True)
            settings = f"run={toml_string(str(run.folder.resolve()))}"
            flower = self._flower.run(app, settings)
            while self._goes_on(flower, run):
                tick()
                for program in self._programs:
                    if program.revive():
                        self._say(f"{program.name} died and was restarted.")
                time.sleep(_TICK_SECONDS)
            raise_reported(run)
            if run.model.exists():
                return
            self._say("The ServerApp died; it is restarted and resumes its round.")
        raise FederationError("The ServerApp keeps dying.", f"Read {self.folder / 'logs'}.")

    def _goes_on(self, flower: str, run: Run) -> bool:
        """Return whether the ServerApp is alive, by its own status or else by Flower's."""
        status = run.status
        if status.exists():
            return run.read_json(status)["state"] == "running" and run.in_work
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return True
        self._looked = now
        try:
            return flower in self._flower.live_runs()
        except FederationError:
            return True  # the SuperLink itself may be down
