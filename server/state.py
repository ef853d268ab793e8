"""The server's state files, among them the snapshot of each round, from which a run resumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import safe_open

from dppm_model.errors import RunFolderError
from dppm_model.files import write_bytes
from dppm_model.folders import there
from dppm_model.reading import check_regular, reading

Arrays = dict[str, NDArray[Any]]

_TEXT = "text."


class StateFile:
    """The content of a file that names its plan, besides other texts and arrays."""

    plan: str

    def write(self, path: Path) -> None:
        """Write atomically and durably; until then the previous file stays valid."""
        texts, arrays = self.encode()
        # Not as metadata: the library refuses a header of 100 MB, which 600 sites' shares exceed.
        for name, text in {"plan": self.plan, **texts}.items():
            arrays[_TEXT + name] = np.frombuffer(text.encode(), dtype=np.uint8)
        write_bytes(path, safetensors.numpy.save(arrays))

    @classmethod
    def read(cls, path: Path, plan: str) -> Self | None:
        """Read a file of this plan, or None if there is none yet.

        Raises `RunFolderError` if the file is damaged or of another plan.
        """
        if not there(path):
            return None
        with reading(path, RunFolderError, "Restore it, or start a new run."):
            check_regular(path)
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            texts = {
                name.removeprefix(_TEXT): arrays.pop(name).tobytes().decode()
                for name in list(arrays)
                if name.startswith(_TEXT)
            }
            other, state = texts["plan"] != plan, cls.decode(texts, arrays)
        if other:
            raise RunFolderError(
                f"{path} belongs to another plan.", "Continue with that plan, or use a new folder."
            )
        return state

    def encode(self) -> tuple[dict[str, str], Arrays]:
        """Return the texts, besides the plan, and the arrays."""
        raise NotImplementedError

    @classmethod
    def decode(cls, texts: dict[str, str], arrays: Arrays) -> Self:
        """Undo `encode`; ``texts`` has the plan."""
        raise NotImplementedError


@dataclass(frozen=True)
class Snapshot(StateFile):
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

    def encode(self) -> tuple[dict[str, str], Arrays]:
        """See `StateFile`."""
        arrays = {f"learner.{name}": np.asarray(value) for name, value in self.learner.items()}
        arrays["model"] = np.frombuffer(self.model, dtype=np.uint8)
        return {"phase": str(self.phase), "round": str(self.round)}, arrays

    @classmethod
    def decode(cls, texts: dict[str, str], arrays: Arrays) -> Self:
        """See `StateFile`."""
        model = arrays.pop("model").tobytes()
        learner = {name.removeprefix("learner."): value for name, value in arrays.items()}
        return cls(texts["plan"], int(texts["phase"]), int(texts["round"]), model, learner)


@dataclass(frozen=True)
class Release(StateFile):
    """The release of a round: the sum with the server's noise, never the sum itself.

    Attributes
    ----------
    number
        Number of the round, over all phases.
    sites
        Number of reports in the sum.
    total
        (report_length,) int64.
    """

    plan: str
    number: int
    sites: int
    total: NDArray[np.int64]

    def encode(self) -> tuple[dict[str, str], Arrays]:
        """See `StateFile`."""
        return {"number": str(self.number), "sites": str(self.sites)}, {"total": self.total}

    @classmethod
    def decode(cls, texts: dict[str, str], arrays: Arrays) -> Self:
        """See `StateFile`."""
        return cls(texts["plan"], int(texts["number"]), int(texts["sites"]), arrays["total"])
