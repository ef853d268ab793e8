"""The memory of a member in one run: a small file, replaced atomically, readable by its owner."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dppm_model.errors import LedgerError
from dppm_model.files import write_bytes
from dppm_model.securesum.group import Group

T = TypeVar("T")


@dataclass
class RoundMemory:
    """A try of a round.

    It has the seed and what this site (``own``) and all participants published; the shares that
    this site holds; and the survivors, once the sum is opened.
    """

    seed: bytes
    own: bytes = b""
    published: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, bytes] = field(default_factory=dict)
    survivors: list[int] | None = None


@dataclass
class Memory:
    """A run."""

    group: bytes  # digest of the group
    channel: bytes  # the private channel key
    # the peers' channel keys, and the secrets agreed with each
    peers: dict[int, bytes] = field(default_factory=dict)
    agreed: dict[int, bytes] = field(default_factory=dict)
    latest: int = -1  # the last try that was prepared
    # the tries that are not over: at most one that has begun, and one that was prepared
    rounds: dict[int, RoundMemory] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write durably, before anything that relies on it."""
        write_bytes(path, json.dumps(asdict(self), default=bytes.hex).encode())

    @classmethod
    def open(cls, path: Path, group: Group) -> Memory:
        """Read the memory of a run, or begin it.

        Raises LedgerError if it is damaged, or of another group under the same name of a run.
        """
        if not path.exists():
            cls(group.digest, secrets.token_bytes(32)).save(path)
        try:
            raw = json.loads(path.read_text())
            rounds = {int(number): _read(RoundMemory, r) for number, r in raw["rounds"].items()}
            memory = _read(cls, raw | {"rounds": rounds})
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise LedgerError(
                f"{path} is damaged: {error!r}.", "Sit out until the next run; spend nothing twice."
            ) from None
        if memory.group != group.digest:
            raise LedgerError(
                f"{path}: run {group.run} was begun with other sites, thresholds or another plan.",
                "They cannot change during a run; start a new run.",
            )
        return memory


def _read(kind: type[T], raw: dict[str, Any]) -> T:
    """Undo ``asdict``; JSON has made hexadecimal strings of bytes, and strings of numbered keys."""
    hints = get_type_hints(kind)
    if raw.keys() != hints.keys():
        raise ValueError("a field is missing or unknown")
    found = dict(raw)
    for name, hint in hints.items():
        if hint is bytes:
            found[name] = bytes.fromhex(raw[name])
        elif hint == dict[int, bytes]:
            found[name] = {int(key): bytes.fromhex(value) for key, value in raw[name].items()}
    return kind(**found)
