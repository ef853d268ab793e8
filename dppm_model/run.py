"""A run folder: the files of one training run.

config.yaml  overrides.json  plan.json  roster.toml  privacy.json  ledger.jsonl  metrics.jsonl
sessions.jsonl  status.json  model.safetensors  samples.png  film.png  samples/  evaluation.json
evaluation.md  audit.json  report.html  release.html  export/  private/  sites/ (simulation)  state/
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dppm_model.errors import ConfigError, DppmError, PlanError, RunFolderError
from dppm_model.files import append_json_line, sweep, write_bytes, write_json
from dppm_model.folders import held, is_held, read_json_lines, there
from dppm_model.plan import Plan
from dppm_model.reading import read_json, read_text, reading
from dppm_model.securesum.peers import parse_peers, peers_text

_TRAINING, _WORKING = ".training", ".working"
_AGAIN = "Run the command that writes it again."
_RESTORE = "Restore it from a backup, or train again in another folder."
_ALWAYS = {
    "overrides.json": ("overrides",),
    "status.json": ("state",),
    "privacy.json": [
        "unit",
        "adjacency",
        "delta",
        "honest_sites",
        "phases",
        "epsilon_release",
        "epsilon_secure_sum",
        "epsilon_site",
        "public_data",
        "data",
    ],
}
_SEE_LOG = "See the log; run the same command again to resume."


class _File:
    """A path inside a run folder."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, run: Run, kind: type[Run] | None = None) -> Path:
        return run.folder.joinpath(*self._parts)


@dataclass(frozen=True)
class Run:
    """Paths and small readers of a run folder."""

    folder: Path

    config = _File("config.yaml")  # resolved
    overrides = _File("overrides.json")  # that were typed to make the run
    privacy = _File("privacy.json")  # the promise and its cost
    roster = _File("roster.toml")  # identity keys of all sites
    ledger = _File("ledger.jsonl")  # the server's
    metrics = _File("metrics.jsonl")  # a line a round
    sessions = _File("sessions.jsonl")  # a line for each start of training: time and versions
    status = _File("status.json")  # the last state of the training loop
    initial = _File("state", "initial.safetensors")  # the model before any round
    snapshot = _File("state", "round.safetensors")  # the state after the last finished round
    checkpoint = _File("state", "exchange.safetensors")  # of the secure sum of the present round
    release = _File("state", "release.safetensors")  # the last sum, with the server's own noise
    model = _File("model.safetensors")  # trained
    sites = _File("sites")  # folders of the virtual sites (simulation only)
    samples = _File("samples")  # synthetic images
    evaluation = _File("evaluation.json")  # figures of `dppm evaluate`
    audit = _File("audit.json")  # figures of `dppm audit`
    export = _File("export")  # synthetic images in other formats
    release_page = _File("release.html")  # to be signed before they leave

    @property
    def model_digest(self) -> str:
        """The SHA-256 of the trained model's file."""
        return hashlib.sha256(self.model.read_bytes()).hexdigest()

    def write_peers(self, peers: Mapping[str, bytes]) -> None:
        """Store the identity keys of all sites, by name."""
        write_bytes(self.roster, peers_text(peers).encode())

    def peers(self) -> dict[str, bytes]:
        """Read the identity keys of all sites, by name.

        Raises ConfigError if they are missing, or not as they should be.
        """
        with reading(self.roster, ConfigError, "List every site's identity key."):
            return parse_peers(read_text(self.roster), str(self.roster))

    def write_plan(self, plan: Plan) -> None:
        """Store the plan in its canonical form."""
        write_bytes(self.folder / "plan.json", plan.to_json().encode())

    def plan(self) -> Plan:
        """Read the plan back.

        Raises RunFolderError if there is none: the folder is not a run, and PlanError if it is
        damaged.
        """
        path = self.folder / "plan.json"
        if not there(path):
            raise RunFolderError(
                f"{self.folder} is not a run folder: plan.json is missing.",
                "Name a folder that `dppm simulate` made, or make one.",
            )
        cure = "Restore it from a backup, or begin a new run: a run cannot change its plan."
        with reading(path, RunFolderError, cure):
            text = read_text(path)
        try:
            return Plan.from_json(text)
        except PlanError as error:
            raise PlanError(f"{path}: {error.message}", cure) from None

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read one of the folder's JSON files, each of which is an object.

        Raises RunFolderError if it is missing, damaged, or lacks what it always has.
        """
        with reading(path, RunFolderError, _AGAIN):
            found = {**read_json(path)}
            if missing := [key for key in _ALWAYS.get(path.name, ()) if key not in found]:
                raise ValueError(f"it lacks {', '.join(missing)}")
        return found

    def rounds(self) -> list[dict[str, Any]]:
        """Return the metrics so far, one entry a round.

        Raises RunFolderError if they are damaged.
        """
        return read_json_lines(self.metrics, RunFolderError, _RESTORE)

    def starts(self) -> list[dict[str, Any]]:
        """Return the time and versions of each start of training; raises as `rounds` does."""
        return read_json_lines(self.sessions, RunFolderError, _RESTORE)

    @property
    def in_work(self) -> bool:
        """Whether a process trains this run now."""
        return is_held(self.folder / _TRAINING)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands from writing into the folder; first remove the remains of dead ones.

        Raises RunFolderError if another one does so now.
        """
        with self._held(_WORKING, f"Another command is using {self.folder}."):
            sweep(self.folder)
            yield

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Keep ``status.json`` true: running, then finished, or failed with the reason.

        The error travels through the file because the training loop may run in another process
        (Flower's ServerApp), and the command line must still exit with the right code.

        Raises RunFolderError if another process trains the run.
        """
        with self._held(_TRAINING, f"Another process is training {self.folder}."):
            yield from self._reporting()

    def _held(self, name: str, message: str) -> AbstractContextManager[None]:
        return held(self.folder / name, RunFolderError(message, "Wait for it, or stop it."))

    def _reporting(self) -> Iterator[None]:
        path = self.status
        write_json(path, {"state": "running"})
        append_json_line(
            self.sessions,
            {
                "begun": datetime.now(UTC).isoformat(timespec="seconds"),
                "python": platform.python_version(),
                **{name: version(name) for name in ("dppm", "torch", "numpy", "flwr")},
            },
        )
        try:
            yield
        except BaseException as error:
            shown = error if isinstance(error, DppmError) else DppmError(repr(error), _SEE_LOG)
            failed = {"state": "failed", "error": type(error).__name__}
            with contextlib.suppress(OSError):  # a full disk may be why, and must not hide it
                write_json(path, failed | {"message": shown.message, "hint": shown.hint})
            raise
        write_json(path, {"state": "finished"})
