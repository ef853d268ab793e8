"""What a member remembers of a run: one small file, replaced atomically, readable by its owner."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from dppm_model.errors import LedgerError
from dppm_model.files import write_bytes
from dppm_model.securesum.group import Group

T = TypeVar("T")


@dataclass
class RoundMemory:
    """A try of a round.

    Its seed, and what this site published; what all participants have, and shares; who survived.

    Bytes are kept in hexadecimal.
    """

    seed: str
    own: str = ""
    published: dict[int, str] = field(default_factory=dict)
    shares: dict[int, str] = field(default_factory=dict)
    survivors: list[int] | None = None


@dataclass
class Memory:
    """A run.

    Attributes
    ----------
    group
        Digest of the group.
    channel
        The private channel key.
    peers
        Channel keys that the peers have shown.
    agreed
        The secrets that follow from them and from the private key.
    latest
        The last try that was prepared.
    rounds
        The tries that are not over, two at most: one that was begun, and one that was prepared.
    """

    group: str
    channel: str
    peers: dict[int, str] = field(default_factory=dict)
    agreed: dict[int, str] = field(default_factory=dict)
    latest: int = -1
    rounds: dict[int, RoundMemory] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write durably: whatever follows may rely on it."""
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
            memory = cls(
                group=raw["group"],
                channel=raw["channel"],
                peers=_numbered(raw["peers"]),
                agreed=_numbered(raw["agreed"]),
                latest=raw["latest"],
                rounds={
                    number: RoundMemory(
                        seed=r["seed"],
                        own=r["own"],
                        published=_numbered(r["published"]),
                        shares=_numbered(r["shares"]),
                        survivors=r["survivors"],
                    )
                    for number, r in _numbered(raw["rounds"]).items()
                },
            )
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


def _numbered(values: dict[str, T]) -> dict[int, T]:
    """JSON's keys are strings."""
    return {int(key): value for key, value in values.items()}
