"""Tables of costs, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from deploy.cost.run import SITE_LINK, RunCost
from deploy.cost.scaling import Row
from deploy.cost.seconds import largest, whole
from deploy.show import epsilon_text

_SECONDS = ((365 * 86400.0, "a"), (86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def seconds_text(value: float) -> str:
    """Write seconds in the unit that fits."""
    size, name = next(((s, n) for s, n in _SECONDS if value >= 2 * s), (1.0, "s"))
    return f"{_figure(value / size)} {name}"


def bytes_text(value: float) -> str:
    """Write bytes in the unit that fits."""
    size, name = next(((s, n) for s, n in _BYTES if value >= s), (1.0, "B"))
    return f"{_figure(value / size)} {name}"


def _figure(value: float) -> str:
    """Two digits, or all that stand before the point: costs are not known better."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def cost_table(cost: RunCost) -> Table:
    """Draw what a round of each phase costs: a site, the server, and one machine that plays all."""
    columns = ("phase", "a site", "server", "all here", "up", "down", "mostly")
    table = _table("A round", columns)
    for bill in cost.bills:
        table.add_row(
            bill.load.phase.name,
            seconds_text(whole(bill.site)),
            seconds_text(whole(bill.server)),
            seconds_text(bill.simulated),
            bytes_text(bill.traffic.up),
            bytes_text(bill.traffic.down),
            largest(bill.site),
        )
    return table


def cost_text(cost: RunCost) -> str:
    """Say what the whole run costs, in the fewest lines."""
    first, traffic = cost.bills[0], cost.traffic()
    up, down = sum(t.up for t in traffic), sum(t.down for t in traffic)
    site = max(whole(bill.site_memory) for bill in cost.bills)
    server = max(whole(bill.server_memory) for bill in cost.bills)
    return (
        f"In all {len(traffic)} rounds, {bytes_text(up)} up and {bytes_text(down)} down per site. "
        f"Simulated by {first.backend} on {first.units.cores} cores about "
        f"{seconds_text(cost.simulated)}; deployed about {seconds_text(cost.total('deployed'))}, "
        f"with {SITE_LINK * 8e-6:.0f} Mbit/s per site. Memory: {bytes_text(site)} per site, "
        f"{bytes_text(server)} at the server."
    )


def road_table(rows: Sequence[Row]) -> Table:
    """Draw the road: a gradient round of each federation and model."""
    columns = ("sites", "D", "ε", "noise", "site", "server", "up", "down", "site", "server")
    table = _table("A gradient round of D parameters: time, bytes of a site, memory", columns)
    for row in rows:
        bill = row.bill
        table.add_row(
            f"{bill.load.sites:,}",
            f"{bill.load.phase.dimension:.0e}".replace("e+0", "e"),
            "–" if row.epsilon is None else epsilon_text(row.epsilon),
            "–" if row.epsilon is None else f"{row.noise:.2g}",
            seconds_text(whole(bill.site)),
            seconds_text(whole(bill.server)),
            bytes_text(bill.traffic.up),
            bytes_text(bill.traffic.down),
            bytes_text(whole(bill.site_memory)),
            bytes_text(whole(bill.server_memory)),
        )
    return table


def road_notes(rows: Sequence[Row], last: Row) -> list[str]:
    """Say what stops being affordable, and why."""
    notes = []
    for row in rows:
        where = f"{row.bill.load.sites:,} sites, {row.bill.load.phase.dimension:.0e} parameters"
        if row.refused:
            notes.append(f"{where}: no plan; {row.refused}")
        if row.limits:
            reasons = ", ".join(f"{what} ({term})" for what, term in row.limits.items())
            notes.append(f"{where}: not affordable: {reasons}")
    if last.limits:
        reasons = ", ".join(f"{what} ({term})" for what, term in last.limits.items())
        notes.append(
            f"Secure sum among all sites: at {last.bill.load.phase.dimension:.0e} parameters it "
            f"stops at about {last.bill.load.sites:,} sites: {reasons}."
        )
    return notes
