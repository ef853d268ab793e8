"""What a site's operator allows: ``site.toml``, which the server never sees."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tomli_w

from dppm_model.budget import Budget
from dppm_model.errors import ConfigError, PolicyError, TooFewSurvivors
from dppm_model.files import write_bytes
from dppm_model.mechanism.registry import MECHANISMS
from dppm_model.plan import Plan
from dppm_model.reading import read_text, reading
from dppm_model.records.units import Unit

_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")


@dataclass(frozen=True)
class Policy:
    """The site's own file ``site.toml``. The server never sees it and cannot raise a limit in it.

    It is closed: a missing limit or an unknown key refuses everything.
    """

    records: Annotated[str, "Shard folder of this site's records (`dppm data import` makes one)."]
    index: Annotated[str, "File with the numbers of the records to use, or empty for all of them."]
    max_epsilon_secure_sum: Annotated[
        float, "The most this site spends over all runs, as seen in sums; inf: no limit."
    ]
    max_epsilon_site: Annotated[
        float,
        "The same, as seen in this site's own reports; inf: no limit.",
    ]
    max_epsilon_trusted_server: Annotated[
        float,
        "The same for who sees only what a server releases that adds the noise itself, sees exact "
        "sums without any, and is trusted with them; 0: no server is trusted so.",
    ]
    delta: Annotated[float, "The delta of all, below one over the number of records."]
    unit: Annotated[Unit, "What is protected at least: record, or person (all records of one)."]
    max_records_per_person: Annotated[int, "The most records of a person in one answer."]
    min_records: Annotated[int, "With fewer records (or persons) this site takes no part."]
    mechanisms: Annotated[tuple[str, ...], "Mechanisms that are allowed."]
    min_survivors: Annotated[
        int, "The least number of sites in a sum that this site helps to open."
    ]
    colluding_sites: Annotated[int, "The least number of colluding sites that a plan must assume."]
    hours: Annotated[str, "When this site answers, in local time: 20:00-06:00, or 00:00-24:00."]
    release_seconds: Annotated[
        float, "Seconds from question to report, whatever the work takes; 0: sent at once."
    ]

    def __post_init__(self) -> None:
        for name in ("records", "index"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", "Give a path in quotes.")
        for name in ("max_epsilon_secure_sum", "max_epsilon_site", "delta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}.", "Give a number above zero.")
        trusted = self.max_epsilon_trusted_server
        if type(trusted) not in (int, float) or not trusted >= 0:
            raise ConfigError(
                f"max_epsilon_trusted_server is {trusted!r}.", "Give 0 or a number above it."
            )
        if not self.delta < 1:
            raise ConfigError(f"delta is {self.delta!r}.", "Give a number below one.")
        seconds = self.release_seconds
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ConfigError(f"release_seconds is {seconds!r}.", "Give 0 or more seconds.")
        for name, least in (
            ("min_survivors", 1),
            ("colluding_sites", 0),
            ("max_records_per_person", 1),
            ("min_records", 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"{name} is {value!r}.", f"Give a whole number from {least}.")
        if self.unit not in get_args(Unit):
            raise ConfigError(f"unit is {self.unit!r}.", f"Use {' or '.join(get_args(Unit))}.")
        if not self.mechanisms or any(name not in MECHANISMS for name in self.mechanisms):
            raise ConfigError(
                f"mechanisms is {self.mechanisms!r}.", f"List some of {', '.join(MECHANISMS)}."
            )
        if not _minutes_of(self.hours):
            raise ConfigError(f"hours is {self.hours!r}.", "Give two times, as in 20:00-06:00.")

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read the file; a missing limit or an unknown key refuses.

        Raises
        ------
        ConfigError
            If the file is missing, not exactly of these keys, or a value is out of its range.
        """
        with reading(path, ConfigError, "Write a site.toml for this site."):
            raw = tomllib.loads(read_text(path))
        known = {f.name for f in fields(cls)}
        if missing := sorted(known - raw.keys()):
            raise ConfigError(f"{path}: {', '.join(missing)} is not set.", "Set it in the file.")
        if unknown := sorted(raw.keys() - known):
            raise ConfigError(
                f"{path}: {', '.join(unknown)} is unknown.",
                f"site.toml has exactly these keys: {', '.join(sorted(known))}.",
            )
        with reading(path, ConfigError, "Compare with `dppm site init`'s."):
            try:
                return cls(**{**raw, "mechanisms": tuple(raw["mechanisms"])})
            except ConfigError as error:
                raise ConfigError(f"{path}: {error.message}", error.hint) from None

    @property
    def budget(self) -> Budget:
        """The limits."""
        return Budget(
            self.max_epsilon_secure_sum,
            self.max_epsilon_site,
            self.delta,
            self.max_epsilon_trusted_server,
        )

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that protects less than the operator wants.

        Raises
        ------
        TooFewSurvivors, PolicyError
            The server cannot override any of it.
        """
        hint = "The site's operator may change {} in site.toml; the server cannot."
        if plan.min_survivors < self.min_survivors:
            raise TooFewSurvivors(
                f"run {plan.run} opens sums of {plan.min_survivors} sites, this site wants "
                f"{self.min_survivors}.",
                hint.format("min_survivors"),
            )
        if plan.colluding_sites < self.colluding_sites:
            raise TooFewSurvivors(
                f"run {plan.run} assumes {plan.colluding_sites} colluding sites, this site "
                f"wants {self.colluding_sites}.",
                hint.format("colluding_sites"),
            )
        if self.unit == "person" and plan.unit != "person":
            raise PolicyError(
                f"run {plan.run} protects a {plan.unit}, this site's unit is the person.",
                hint.format("unit"),
            )
        if plan.records_per_person > self.max_records_per_person:
            raise PolicyError(
                f"run {plan.run} takes {plan.records_per_person} records of a person, this site "
                f"gives {self.max_records_per_person}.",
                hint.format("max_records_per_person"),
            )
        if plan.trusts_server and not self.max_epsilon_trusted_server > 0:
            raise PolicyError(
                f"run {plan.run} would show the server exact sums, and trusts it to add the noise.",
                hint.format("max_epsilon_trusted_server"),
            )
        if others := {p.mechanism.name for p in plan.phases} - set(self.mechanisms):
            raise PolicyError(
                f"run {plan.run} asks by {', '.join(sorted(others))}, this site answers by "
                f"{', '.join(self.mechanisms)}.",
                hint.format("mechanisms"),
            )

    def check_records(self, units: int) -> None:
        """Refuse to take part with too few records, or persons.

        Raises
        ------
        PolicyError
            Without saying how many there are: the name of the error reaches the server.
        """
        if units < self.min_records:
            raise PolicyError(
                f"this site holds fewer than min_records = {self.min_records}.",
                "Sit out, or lower min_records in site.toml.",
            )

    def check_hours(self, now: datetime) -> None:
        """Refuse outside the hours of the site.

        Raises
        ------
        PolicyError
            If ``now`` (local time) lies outside.
        """
        begin, end = _minutes_of(self.hours)
        minute = now.hour * 60 + now.minute
        inside = begin <= minute < end if begin < end else minute >= begin or minute < end
        if not inside:
            raise PolicyError(f"it is outside this site's hours, {self.hours}.", "Ask again then.")

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        write_template(path, asdict(self))


def _minutes_of(hours: str) -> tuple[int, ...]:
    """Read begin and end in minutes of the day; nothing if they are not two times."""
    match = _HOURS.fullmatch(hours) if isinstance(hours, str) else None
    if not match:
        return ()
    begin, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
    return (begin, end) if begin != end and max(begin, end) <= 24 * 60 else ()


def write_template(path: Path, values: Mapping[str, Any]) -> None:
    """Write ``site.toml`` for an operator: what is not known yet is there, but not set."""
    lines = ["# This site's policy. The server never sees it and cannot change it.\n"]
    for name, hint in get_type_hints(Policy, include_extras=True).items():
        lines.append(f"\n# {hint.__metadata__[0]}\n")
        known = name in values
        lines.append(tomli_w.dumps({name: values[name]}) if known else f"# {name} = \n")
    write_bytes(path, "".join(lines).encode())
