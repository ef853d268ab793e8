"""The cost of a whole run, simulated on one machine or deployed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deploy.cost.load import Load, loads
from deploy.cost.memory import server_memory, site_memory
from deploy.cost.seconds import (
    Terms,
    first_seconds,
    message_seconds,
    server_seconds,
    site_seconds,
    watching,
    whole,
)
from deploy.cost.traffic import Traffic, site_traffic
from deploy.cost.units import LAPTOP, Units
from dppm_model.config import Config
from dppm_model.plan import Plan

SITE_LINK = 12.5e6  # bytes a second of a site's line (100 Mbit/s)
SERVER_LINK = 125e6  # and of the server's (1 Gbit/s)


@dataclass(frozen=True)
class Bill:
    """What one round costs, sites alike and nobody dropping out.

    Attributes
    ----------
    load, units
        What is asked, and what it costs on this machine.
    backend
        How the simulation moves messages, ``flower`` or ``inprocess``.
    """

    load: Load
    units: Units
    backend: str

    @cached_property
    def site(self) -> Terms:
        """Seconds of one site on one core, by term."""
        return site_seconds(self.load, self.units)

    @cached_property
    def server(self) -> Terms:
        """Seconds of the server on one core, by term."""
        return server_seconds(self.load, self.units)

    @cached_property
    def messages(self) -> Terms:
        """Seconds of a simulation's messages, by term."""
        return message_seconds(self.load, self.units, self.backend)

    @property
    def traffic(self) -> Traffic:
        """Bytes of one site."""
        return site_traffic(self.load)

    @cached_property
    def site_memory(self) -> Terms:
        """Peak bytes of a site, by term."""
        return site_memory(self.load, self.units)

    @cached_property
    def server_memory(self) -> Terms:
        """Peak bytes of the server, by term."""
        return server_memory(self.load, self.units)

    @property
    def reading(self) -> float:
        """Seconds to read the round's model, which every process does once, at the same time."""
        return self.units.kinds[self.load.kind].model * max(1.0, self.processes / self.parallel)

    @property
    def processes(self) -> int:
        """How many processes play the sites of a simulation."""
        return 1 if self.backend == "inprocess" else min(self.units.cores, self.load.sites)

    @property
    def parallel(self) -> float:
        """How many sites' work is done at a time in a simulation, beside looking for messages."""
        return (
            1.0
            if self.backend == "inprocess"
            else self.units.parallel - watching(self.load, self.units)
        )

    @property
    def simulated(self) -> float:
        """Wall seconds where one machine plays all sites and the server."""
        sites = self.load.sites * whole(self.site) / self.parallel + self.reading
        return sites + whole(self.messages) + whole(self.server)

    @property
    def transfer(self) -> float:
        """Seconds on the wire in a deployment: a site's line, or the server's for all of them."""
        each = self.traffic.up + self.traffic.down
        return max(each / SITE_LINK, self.load.sites * each / SERVER_LINK)

    @property
    def deployed(self) -> float:
        """Wall seconds where every site has a machine, and the server one."""
        own = whole(self.site) + self.units.kinds[self.load.kind].model + whole(self.server)
        return own + 2 * self.units.poll + self.transfer

    def to_json(self) -> dict[str, Any]:
        """Return all of it for scripts; seconds and bytes."""
        return {
            "site_seconds": self.site,
            "server_seconds": self.server,
            "message_seconds": self.messages,
            "site_memory": self.site_memory,
            "server_memory": self.server_memory,
            "up_bytes": self.traffic.up,
            "down_bytes": self.traffic.down,
            "simulated_seconds": self.simulated,
            "deployed_seconds": self.deployed,
        }


@dataclass(frozen=True)
class RunCost:
    """What a plan costs.

    Attributes
    ----------
    bills
        Of a round of each phase.
    """

    bills: tuple[Bill, ...]

    @classmethod
    def of(
        cls, plan: Plan, config: Config, units: Units = LAPTOP, backend: str | None = None
    ) -> RunCost:
        """Reckon a plan's cost; ``backend`` is the configuration's if it is not given."""
        how = config.backend if backend is None else backend
        return cls(tuple(Bill(load, units, how) for load in loads(plan)))

    def total(self, what: str) -> float:
        """Sum a property of `Bill` over all rounds."""
        return sum(b.load.phase.rounds * float(getattr(b, what)) for b in self.bills)

    @property
    def begin(self) -> float:
        """Seconds of a simulation that belong to no round: processes start, sites meet.

        Every process certifies every phase: the sites' at the same time, then the server's. Where
        one process does it all, it has done so when it planned.
        """
        first, units = self.bills[0], self.bills[0].units
        meeting = first.load.sites * whole(first_seconds(first.load, units))
        if first.backend == "inprocess":
            return meeting
        apart = 1 + units.cores / units.parallel
        return units.start + meeting / first.parallel + apart * len(self.bills) * units.certify

    @property
    def simulated(self) -> float:
        """Wall seconds of the whole simulation."""
        return self.begin + self.total("simulated")

    def traffic(self) -> list[Traffic]:
        """Return the bytes of one site in each round of the run, in order."""
        number, found = 0, []
        for bill in self.bills:
            for _ in range(bill.load.phase.rounds):
                found.append(site_traffic(bill.load, number))
                number += 1
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        traffic = self.traffic()
        return {
            "machine": self.bills[0].units.machine,
            "simulated_seconds": self.simulated,
            "deployed_seconds": self.total("deployed"),
            "up_bytes": sum(t.up for t in traffic),
            "down_bytes": sum(t.down for t in traffic),
            "rounds": {b.load.phase.name: b.to_json() for b in self.bills},
        }
