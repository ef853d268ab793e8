"""The policy of a site's operator, ``site.toml``, which the server never sees."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import tomli_w

from dppm_model import bounds
from dppm_model.bounds import Between
from dppm_model.budget import Budget
from dppm_model.device import check_device_name
from dppm_model.errors import ConfigError, DppmError, PolicyError, TooFewSurvivors
from dppm_model.files import write_bytes
from dppm_model.mechanism.registry import MECHANISMS
from dppm_model.plan import Plan
from dppm_model.reading import read_toml
from dppm_model.records.units import Unit

_LEAST, _MOST, _LONGEST = 1e-15, 2**63 - 1, 1e6  # of a delta; of a count; seconds
_LIMIT, _COUNT = Between(_LEAST, math.inf), Between(1, _MOST)
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The contents of ``site.toml``. The server never sees it and cannot raise a limit in it.

    Its file has every key: a missing limit or an unknown key refuses everything. The defaults are
    those that `dppm site init` writes.
    """

    records: Annotated[str, "Shard folder with this site's records, as made by `dppm data import`."]
    index: Annotated[str, "File with the indices of records to use; empty for all records."] = ""
    max_epsilon_secure_sum: Annotated[
        float, "Limit over all runs against anyone who sees the sums; inf: no limit.", _LIMIT
    ]
    max_epsilon_site: Annotated[
        float,
        "Limit over all runs against anyone who sees this site's reports; inf: no limit.",
        _LIMIT,
    ]
    max_epsilon_trusted_server: Annotated[
        float,
        "Limit over all runs whose server adds the noise itself: it sees exact sums, and this is "
        "the limit against anyone who sees only what it releases; 0: trust no server.",
        Between(0.0, math.inf),
    ] = 0.0
    delta: Annotated[
        float,
        "Delta of all limits; below one over the number of records.",
        Between(_LEAST, 1 - _LEAST),
    ]
    unit: Annotated[Unit, "Smallest unit to protect: record, or person (all records of one)."]
    max_records_per_person: Annotated[
        int, "Maximum number of records of a person in one answer.", _COUNT
    ] = 8
    min_records: Annotated[int, "Fewest records (or persons) to take part with.", _COUNT] = 100
    mechanisms: Annotated[tuple[str, ...], "Allowed mechanisms."] = ("binomial",)
    min_survivors: Annotated[
        int, "Minimum number of sites in a sum that this site helps to open.", _COUNT
    ] = 2
    colluding_sites: Annotated[
        int, "Minimum number of colluding sites a plan must assume.", Between(0, _MOST)
    ] = 0
    hours: Annotated[str, "Local time of answers, as in 20:00-06:00."] = "00:00-24:00"
    release_seconds: Annotated[
        float,
        "Seconds from a question to its report, independent of compute time; 0: no delay.",
        Between(0.0, _LONGEST),
    ] = 0.0
    device: Annotated[
        str, "Where answers are computed: cpu, cuda, cuda:1; auto is a GPU if there is one."
    ] = "auto"

    def __post_init__(self) -> None:
        bounds.check_settings(self, exact=False)
        if not self.mechanisms or any(name not in MECHANISMS for name in self.mechanisms):
            hint = f"List any of: {', '.join(MECHANISMS)}."
            bounds.refuse(ConfigError, "mechanisms", self.mechanisms, hint)
        check_device_name(self.device)
        if not _minutes_of(self.hours):
            bounds.refuse(ConfigError, "hours", self.hours, "Give two times, as in 20:00-06:00.")

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read ``site.toml``; see `read_toml`."""
        return read_toml(cls, path, "Write a site.toml for this site, as `dppm site init` does.")

    @property
    def budget(self) -> Budget:
        """The site's limits on its spending."""
        return Budget(
            self.max_epsilon_secure_sum,
            self.max_epsilon_site,
            self.delta,
            self.max_epsilon_trusted_server,
        )

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that protects less than the operator requires.

        Raises `TooFewSurvivors` or `PolicyError`; the server cannot override it.
        """

        def refuse(kind: type[DppmError], key: str, does: str, wants: str) -> NoReturn:
            hint = f"The site's operator can change {key} in site.toml; the server cannot."
            raise kind(f"run {plan.run} {does}, this site {wants}.", hint)

        def too_few(key: str, does: str) -> None:
            asked, own = getattr(plan, key), getattr(self, key)
            if asked < own:
                refuse(TooFewSurvivors, key, does.format(asked), f"requires {own}")

        too_few("min_survivors", "opens sums of {} sites")
        too_few("colluding_sites", "assumes {} colluding sites")
        if self.unit == "person" and plan.unit != "person":
            refuse(PolicyError, "unit", f"protects a {plan.unit}", "requires unit = person")
        if (most := self.max_records_per_person) < (records := plan.records_per_person):
            does = f"uses {records} records of a person"
            refuse(PolicyError, "max_records_per_person", does, f"allows {most}")
        if plan.trusts_server and not self.max_epsilon_trusted_server > 0:
            does = "shows the server exact sums, and trusts it to add the noise"
            refuse(PolicyError, "max_epsilon_trusted_server", does, "trusts no server")
        if others := {p.mechanism.name for p in plan.phases} - set(self.mechanisms):
            does = f"uses {', '.join(sorted(others))}"
            refuse(PolicyError, "mechanisms", does, f"allows {', '.join(self.mechanisms)}")

    def check_records(self, units: int) -> None:
        """Raise `PolicyError` for too few records or persons, without saying how many there are."""
        if units < self.min_records:
            raise PolicyError(
                f"this site holds fewer than min_records = {self.min_records}.",
                "Sit out, or lower min_records in site.toml.",
            )

    def check_hours(self, now: datetime) -> None:
        """Raise `PolicyError` if ``now`` (local time) is outside the site's hours."""
        begin, end = _minutes_of(self.hours)
        minute = now.hour * 60 + now.minute
        inside = begin <= minute < end if begin < end else minute >= begin or minute < end
        if not inside:
            raise PolicyError(f"it is outside this site's hours, {self.hours}.", "Ask again then.")

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        write_template(path, asdict(self))


def _minutes_of(hours: str) -> tuple[int, ...]:
    """Parse begin and end in minutes since midnight; empty if they are not two times."""
    match = _HOURS.fullmatch(hours) if isinstance(hours, str) else None
    if not match:
        return ()
    begin, end = (int(match[i]) * 60 + int(match[i + 1]) for i in (1, 3))
    return (begin, end) if begin != end and max(begin, end) <= 24 * 60 else ()


def write_template(path: Path, values: Mapping[str, Any]) -> None:
    """Write ``site.toml`` for an operator; keys without a value are commented out."""
    lines = ["# This site's policy. The server never sees it and cannot change it.\n"]
    for name, hint in get_type_hints(Policy, include_extras=True).items():
        lines.append(f"\n# {hint.__metadata__[0]}\n")
        known = name in values
        lines.append(tomli_w.dumps({name: values[name]}) if known else f"# {name} = \n")
    write_bytes(path, "".join(lines).encode())
