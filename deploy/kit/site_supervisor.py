"""`dppm site run`: keeps the site's SuperNode and the executor of its tasks running."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from client.policy import Policy
from deploy.flower import toml_string
from deploy.kit.code_allowlist import AllowlistExecutor
from deploy.kit.connectivity import check_enrolled, check_server
from deploy.kit.enrolment import Invitation
from deploy.kit.locks import alone
from deploy.kit.site import enrolment_of
from deploy.processes import Supervised, command, environment, free_port
from dppm_model.errors import NotEnrolled
from dppm_model.files import write_bytes

_POLL_SECONDS, _CONNECT_SECONDS = 0.1, 0.5
_PAUSES = (2, 5, 10, 30)  # seconds before the SuperNode is restarted
_STALE_SECONDS = 90  # how long a SuperLink considers a dead node alive
_NODE_ID = re.compile(r"SuperNode ID: (\d+)")


class SiteSupervisor:
    """The SuperNode of a site, which `run` keeps running; ``say`` shows messages."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder = folder.resolve()
        self.address = Invitation.read(folder / "invitation.json").address
        self.name = enrolment_of(folder).site
        self.log = folder / "flower" / "site.log"
        self._home = folder / "flower"
        (self._home / "empty").mkdir(parents=True, exist_ok=True)
        self._environment = environment(self._home)
        self._secret = self._home / "superexec.secret"
        self._say = say
        Policy.read(folder / "site.toml")  # report missing keys now, not to the server

    def run(self) -> None:
        """Answer messages until interrupted; raise as `_explain` if the SuperNode died."""
        with alone(self.folder, "site"), self.log.open("ab") as output:
            write_bytes(self._secret, secrets.token_bytes(32))
            failed_since, tries = 0.0, 0
            while True:
                self._port = free_port()
                self._say(f"Waiting for {self.address} to accept this site.")
                mark = output.seek(0, os.SEEK_END)
                supernode, empty = self._command(), self._home / "empty"
                with Supervised("SuperNode", supernode, empty, self._environment, output) as node:
                    if self._connected(node.process, mark):
                        failed_since, tries = 0.0, 0
                        self._say("Connected.")
                        self._answer(node.process, output)
                        continue
                failed_since = failed_since or time.monotonic()
                self._explain(time.monotonic() - failed_since)
                time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1

    def _connected(self, process: subprocess.Popen[bytes], mark: int) -> bool:
        """Wait until the server accepts the SuperNode, even if it is down; False if it died."""
        while process.poll() is None:
            with self.log.open("rb") as file:
                file.seek(mark)
                found = _NODE_ID.search(file.read().decode(errors="replace"))
            if found:
                write_bytes(self._home / "node_id", found[1].encode())
                return True
            time.sleep(_CONNECT_SECONDS)
        return False

    def _answer(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        """Let the executor answer until the SuperNode dies."""
        secret = self._secret.read_bytes()
        executor = AllowlistExecutor(
            self.folder, f"127.0.0.1:{self._port}", secret, self._environment, output
        )
        with contextlib.closing(executor):
            executor.preload()
            while process.poll() is None:
                if not executor.step():
                    time.sleep(_POLL_SECONDS)

    def _explain(self, seconds: float) -> None:
        """Find out why a SuperNode was not accepted for some seconds.

        Raises `NotConnected`, `Untrusted` or `NotEnrolled` if waiting longer will not help.
        """
        check_server(self.address, self.folder / "ca.crt")
        check_enrolled(self.folder, self.address)
        if seconds > _STALE_SECONDS:
            raise NotEnrolled(
                f"the server considers {self.name} already connected.",
                "Another SuperNode uses this site's key: stop it, or enrol with a new one.",
            )

    def _command(self) -> list[str]:
        return command(
            "flower-supernode",
            superlink=self.address,
            root_certificates=self.folder / "ca.crt",
            auth_supernode_private_key=self.folder / "node.key",
            host="127.0.0.1",
            port=self._port,
            isolation="process",
            superexec_auth_secret_file=self._secret,
            node_config=f"site={toml_string(str(self.folder))}",
        )
