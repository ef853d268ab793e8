"""The server's state files, refused if damaged or for another plan; and the snapshot.

The snapshot is an atomic file, written each round, from which a killed run resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import safe_open

from dppm_model.errors import RunFolderError
from dppm_model.files import write_bytes
from dppm_model.reading import check_regular, reading, there

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


def read_state(path: Path, plan: str, build: Callable[[dict[str, str], Arrays], T]) -> T | None:
    """Read a state file that names its plan, or None if there is none yet.

    Raises `RunFolderError` if the file is damaged or of another plan.

    Parameters
    ----------
    build
        Makes the state from the file's metadata and tensors.
    """
    if not there(path):
        return None
    with reading(path, RunFolderError, "Restore it, or start a new run."):
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        other, state = meta["plan"] != plan, build(meta, tensors)
    if other:
        raise RunFolderError(
            f"{path} belongs to another plan.", "Continue with that plan, or use a new folder."
        )
    return state


@dataclass(frozen=True)
class Snapshot:
    """The state of a run between two rounds.

    Attributes
    ----------
    phase, round
        The next round to ask for.
    model
        The model at the start of the phase, as `ScoreModel.to_bytes` gives it.
    learner
        The learner's state, bit for bit.
    """

    plan: str
    phase: int
    round: int
    model: bytes
    learner: Arrays

    def write(self, path: Path) -> None:
        """Write atomically; the previous file stays valid until the new one is complete."""
        tensors = {f"learner.{name}": np.asarray(value) for name, value in self.learner.items()}
        tensors["model"] = np.frombuffer(self.model, dtype=np.uint8)
        meta = {"plan": self.plan, "phase": str(self.phase), "round": str(self.round)}
        write_bytes(path, safetensors.numpy.save(tensors, meta))

    @classmethod
    def read(cls, path: Path, plan: str) -> Snapshot | None:
        """Read the snapshot of this plan, or None if no round was finished.

        Raises `RunFolderError` if the file is damaged or of another plan.
        """
        return read_state(path, plan, cls._build)

    @classmethod
    def _build(cls, meta: dict[str, str], tensors: Arrays) -> Snapshot:
        return cls(
            plan=meta["plan"],
            phase=int(meta["phase"]),
            round=int(meta["round"]),
            model=tensors.pop("model").tobytes(),
            learner={name.removeprefix("learner."): value for name, value in tensors.items()},
        )


@dataclass(frozen=True)
class Release:
    """What was released of a round: the sum with the server's noise, never the sum itself.

    Attributes
    ----------
    number
        Of the round, over all phases.
    sites
        How many reports are in the sum.
    total
        (report_length,) int64.
    """

    plan: str
    number: int
    sites: int
    total: NDArray[np.int64]

    def write(self, path: Path) -> None:
        """Write atomically and durably."""
        meta = {"plan": self.plan, "number": str(self.number), "sites": str(self.sites)}
        write_bytes(path, safetensors.numpy.save({"total": self.total}, meta))

    @classmethod
    def read(cls, path: Path, plan: str) -> Release | None:
        """Read the last release of this plan, or None if there was none; raises as `Snapshot`."""
        return read_state(
            path,
            plan,
            lambda meta, tensors: cls(
                meta["plan"], int(meta["number"]), int(meta["sites"]), tensors["total"]
            ),
        )
