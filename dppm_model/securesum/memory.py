"""The memory of a member in one run: a small file, replaced atomically, readable by its owner."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from dppm_model.errors import LedgerError
from dppm_model.files import write_bytes
from dppm_model.securesum.group import Group

T = TypeVar("T")


@dataclass
class RoundMemory:
    """A try of a round; bytes are hexadecimal.

    It has the seed and what this site (``own``) and all participants published; the shares that
    this site holds; and the survivors, once the sum is opened.
    """

    seed: str
    own: str = ""
    published: dict[int, str] = field(default_factory=dict)
    shares: dict[int, str] = field(default_factory=dict)
    survivors: list[int] | None = None


@dataclass
class Memory:
    """A run."""

    group: str  # digest of the group
    channel: str  # the private channel key
    # the peers' channel keys, and the secrets agreed with each
    peers: dict[int, str] = field(default_factory=dict)
    agreed: dict[int, str] = field(default_factory=dict)
    latest: int = -1  # the last try that was prepared
    # the tries that are not over: at most one that has begun, and one that was prepared
    rounds: dict[int, RoundMemory] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write durably, before anything that relies on it."""
        write_bytes(path, json.dumps(asdict(self)).encode())

    @classmethod
    def open(cls, path: Path, group: Group) -> Memory:
        """Read the memory of a run, or begin it.

        Raises LedgerError if it is damaged, or of another group under the same name of a run.
        """
        if not path.exists():
            cls(group.digest.hex(), secrets.token_hex(32)).save(path)
        try:
            raw = json.loads(path.read_text())
            rounds = {
                int(number): _whole(RoundMemory, one, "published", "shares")
                for number, one in raw["rounds"].items()
            }
            memory = _whole(cls, raw | {"rounds": rounds}, "peers", "agreed")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise LedgerError(
                f"{path} is damaged: {error!r}.", "Sit out until the next run; spend nothing twice."
            ) from None
        if memory.group != group.digest.hex():
            raise LedgerError(
                f"{path}: run {group.run} was begun with other sites, thresholds or another plan.",
                "They cannot change during a run; start a new run.",
            )
        return memory


def _whole(kind: type[T], raw: dict[str, Any], *numbered: str) -> T:
    """Build what ``asdict`` wrote; JSON has made strings of the keys of the ``numbered`` fields."""
    if raw.keys() != {f.name for f in fields(kind)}:  # type: ignore[arg-type]
        raise ValueError("a field is missing or unknown")
    own = {name: {int(key): value for key, value in raw[name].items()} for name in numbered}
    return kind(**raw | own)
