"""Costs as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from deploy.cost.scaling import ScaledRound
from deploy.cost.timing import round_seconds, run_seconds
from deploy.cost.workload import Workload, run_traffic, workloads
from deploy.show import empty_table, epsilon_text
from dppm_model.config import Config
from dppm_model.plan import Plan

UNKNOWN = "not measured"
_SECONDS = ((365 * 86400.0, "a"), (86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_BYTES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def seconds_text(value: float | None) -> str:
    """Write seconds in the unit that fits."""
    if value is None:
        return UNKNOWN
    size, name = next(((s, n) for s, n in _SECONDS if value >= 2 * s), (1.0, "s"))
    return f"{_two_digits(value / size)} {name}"


def bytes_text(value: float) -> str:
    """Write bytes in the unit that fits."""
    size, name = next(((s, n) for s, n in _BYTES if value >= s), (1.0, "B"))
    return f"{_two_digits(value / size)} {name}"


def cost_json(plan: Plan, config: Config) -> dict[str, Any]:
    """Return the cost of a plan for scripts; seconds are null until measured here."""
    loads = workloads(plan)
    traffic = run_traffic(loads)
    return {
        "simulated_seconds": run_seconds(loads, config.backend),
        "up_bytes": sum(t.up for t in traffic),
        "down_bytes": sum(t.down for t in traffic),
        "rounds": {
            load.phase.name: load.to_json() | {"seconds": round_seconds(load, config.backend)}
            for load in loads
        },
    }


def cost_table(loads: Sequence[Workload], backend: str) -> Table:
    """Draw what a round of each phase costs."""
    table = empty_table("A round", ["phase"], ["up, a site", "down, a site", "time here"])
    for load in loads:
        traffic = load.traffic()
        table.add_row(
            load.phase.name,
            bytes_text(traffic.up),
            bytes_text(traffic.down),
            seconds_text(round_seconds(load, backend)),
        )
    return table


def cost_text(loads: tuple[Workload, ...], backend: str) -> str:
    """Say in a few lines what the whole run costs."""
    traffic = run_traffic(loads)
    up, down = sum(t.up for t in traffic), sum(t.down for t in traffic)
    site = max(sum(load.site_memory.values()) for load in loads)
    server = max(sum(load.server_memory.values()) for load in loads)
    seconds = run_seconds(loads, backend)
    time = (
        f"Simulated here by {backend}: about {seconds_text(seconds)}, scaled from rounds that this "
        "machine has run."
        if seconds is not None
        else "Time: not measured yet on this machine (`dppm plan --measure` times a round of each "
        "phase; a simulation does, too)."
    )
    return (
        f"All {len(traffic)} rounds: {bytes_text(up)} up and {bytes_text(down)} down per site. "
        f"{time} Memory beside Python and its libraries: {bytes_text(site)} per site, "
        f"{bytes_text(server)} at the server."
    )


def scaling_table(rows: Sequence[ScaledRound]) -> Table:
    """Draw a gradient round of each federation and model."""
    columns = ("sites", "D", "ε", "noise", "up", "down", "site memory", "server memory")
    table = empty_table("A gradient round of D parameters; bytes of one site", [], columns)
    for row in rows:
        load, traffic = row.load, row.load.traffic()
        table.add_row(
            f"{load.phase.sites:,}",
            f"{load.phase.dimension:.0e}".replace("e+0", "e"),
            "–" if row.epsilon is None else epsilon_text(row.epsilon),
            "–" if row.epsilon is None else f"{row.noise:.2g}",
            bytes_text(traffic.up),
            bytes_text(traffic.down),
            bytes_text(sum(load.site_memory.values())),
            bytes_text(sum(load.server_memory.values())),
        )
    return table


def scaling_notes(rows: Sequence[ScaledRound], last: ScaledRound) -> list[str]:
    """Say what stops being affordable, and why."""
    notes = []
    for row in rows:
        where = f"{row.load.phase.sites:,} sites, {row.load.phase.dimension:.0e} parameters"
        if row.refused:
            notes.append(f"{where}: no plan; {row.refused}")
        if row.limits:
            notes.append(f"{where}: not affordable: {_reasons(row)}")
    if last.limits:
        phase = last.load.phase
        notes.append(
            f"Secure sum among all sites: at {phase.dimension:.0e} parameters it stops at about "
            f"{phase.sites:,} sites: {_reasons(last)}."
        )
    return notes


def _reasons(row: ScaledRound) -> str:
    return ", ".join(f"{what} ({term})" for what, term in row.limits.items())


def _two_digits(value: float) -> str:
    """Write two digits, or all that stand before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
