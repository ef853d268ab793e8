"""The facts that all members of a secure sum agree on, bound into each of its keys."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from dppm_model.errors import ConfigError, PlanError, UnknownSite
from dppm_model.plan import Plan

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Group:
    """The sites of one run."""

    # name of the run, and digest of its plan
    run: str
    plan: str
    # identity keys (32 bytes) of all sites, sorted; a site's place in it is its index
    roster: tuple[bytes, ...]
    # s, the least number of reports in an opened sum, and t, the number of sites that must help to
    # open it. More than half; see `dppm_model.aggregation.secure_sum_honest_reports`.
    min_survivors: int

    def __post_init__(self) -> None:
        n = len(self.roster)
        if list(self.roster) != sorted(set(self.roster)) or any(len(k) != 32 for k in self.roster):
            raise PlanError(
                "The roster is not a sorted list of distinct keys of 32 bytes.",
                "Collect the sites' identity keys again.",
            )
        if not n < 2 * self.min_survivors <= 2 * n:
            raise PlanError(
                f"min_survivors is {self.min_survivors} of {n} sites.",
                "More than half of the sites must survive and help to open the sum.",
            )

    @classmethod
    def of(cls, plan: Plan, roster: tuple[bytes, ...]) -> Group:
        """Return the group of a plan, with these sites.

        Raises PlanError if the roster has not ``sites`` keys, or min_survivors is too small to be
        safe.
        """
        plan.check_roster(roster)
        return cls(plan.run, plan.digest, roster, plan.min_survivors)

    @property
    def size(self) -> int:
        """N, the number of sites in the roster."""
        return len(self.roster)

    def index_of(self, identity: bytes, whose: str = "This site's own") -> int:
        """Return a site's place in the roster; ``whose`` names it in the error.

        Raises UnknownSite if it is not in the roster.
        """
        if identity not in self.roster:
            raise UnknownSite(
                f"{whose} identity key is not in the list of peers.",
                "Add it to every site's list, or leave that site out.",
            )
        return self.roster.index(identity)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all of the above."""
        fields = [
            *(self.run, self.plan, [key.hex() for key in self.roster]),
            self.min_survivors,
        ]
        return hashlib.sha256(json.dumps(fields).encode()).digest()

    def label(self, purpose: str, *numbers: int) -> bytes:
        """Name one use of a key in this group: keys with different labels are independent."""
        numbered = b"".join(n.to_bytes(8) for n in numbers)
        return b"dppm secure sum 2\0" + self.digest + purpose.encode() + b"\0" + numbered


def check_peers(keys: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    """Check names and identity keys; ``path`` is for the error.

    Raises ConfigError if a name is ambiguous, or a key is not 32 bytes or occurs twice.
    """
    times = Counter(keys.values())
    for name, key in keys.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: {name!r} is not a valid site name.", "Use letters, digits, '-' or '_'."
            )
        if len(key) != 32 or times[key] > 1:
            raise ConfigError(
                f"{path}: the key of {name} is not 32 bytes, or is another site's.",
                "Ask the site for its key again.",
            )
    return dict(keys)
