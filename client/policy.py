"""What a site's operator allows: ``site.toml``, which the server never sees."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from dppm_model.budget import Budget
from dppm_model.errors import ConfigError
from dppm_model.files import write_bytes


@dataclass(frozen=True)
class Policy:
    """The site's own file ``site.toml``. The server never sees it and cannot raise a limit in it.

    Attributes
    ----------
    records
        Shard folder.
    index
        File with the indices of this site's records (simulation), or empty for all records.
    max_epsilon_secure_sum, max_epsilon_site, delta
        What the site is willing to spend over all runs, in either view. Infinity is written `inf`.
    min_survivors
        The least number of reports in a sum that this site helps to open.
    colluding_sites
        The least number of colluding sites that a plan must reckon with.
    release_seconds
        Reports leave this long after their question, or a multiple of it (`client.release`).
    """

    records: str
    index: str
    max_epsilon_secure_sum: float
    max_epsilon_site: float
    delta: float
    min_survivors: int
    colluding_sites: int
    release_seconds: float

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read the file; a missing limit or an unknown key refuses.

        Raises
        ------
        ConfigError
            If the file is missing or not exactly of these keys.
        """
        try:
            raw = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}.", "Write a site.toml for this site.") from None
        known = {f.name for f in fields(cls)}
        if wrong := known ^ raw.keys():
            raise ConfigError(
                f"{path}: {', '.join(sorted(wrong))} missing or unknown.",
                f"site.toml has exactly these keys: {', '.join(sorted(known))}.",
            )
        policy = cls(**raw)
        for name in ("max_epsilon_secure_sum", "max_epsilon_site", "delta"):
            value = getattr(policy, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{path}: {name} is {value!r}.", "Give a number above zero.")
        seconds = policy.release_seconds
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ConfigError(f"{path}: release_seconds is {seconds!r}.", "Give 0 or more seconds.")
        for name, least in (("min_survivors", 1), ("colluding_sites", 0)):
            value = getattr(policy, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"{path}: {name} is {value!r}.", f"Give a whole number from {least}."
                )
        return policy

    @property
    def budget(self) -> Budget:
        """The limits."""
        return Budget(self.max_epsilon_secure_sum, self.max_epsilon_site, self.delta)

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            text = f'"{value}"' if isinstance(value, str) else repr(value)
            lines.append(f"{field.name} = {text}\n")
        write_bytes(path, "".join(lines).encode())
