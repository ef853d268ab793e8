"""Peak bytes of memory of a site's process and of the server's."""

from __future__ import annotations

from deploy.cost.load import GRADIENTS, Load
from deploy.cost.seconds import Terms
from deploy.cost.traffic import report
from deploy.cost.units import Units

_MODELS = 3  # the bytes that came, their arrays, and the network or closed form built of them
_LEARNER = 4 + 2 * 8  # bytes a weight: its average (float32), and Adam's moments (float64)


def site_memory(load: Load, units: Units) -> Terms:
    """Return what a site holds: its report as it is made, the model, keys and shares of peers."""
    return {
        "process": units.site_bytes,
        "report": load.cells * units.cell_bytes,
        "model": _MODELS * float(load.model_bytes),
        "keys": load.sites * units.peer_bytes,
    }


def server_memory(load: Load, units: Units) -> Terms:
    """Return what the server holds: one sum, the model, and a share for each pair of sites.

    Reports are added as they come, so none is counted; shares are kept for two rounds, and written
    as text between them.
    """
    return {
        "process": units.server_bytes,
        "sum": load.cells * units.server_cell_bytes,
        "model": _MODELS * float(load.model_bytes),
        "learner": float(_LEARNER * load.phase.dimension) if load.kind in GRADIENTS else 0.0,
        "pairs": load.sites**2 * units.pair_bytes,
    }


def simulation_memory(load: Load, units: Units) -> Terms:
    """Return what Flower's simulation holds: the server, and a question for each process.

    The questions that wait share the bytes of one model; only what is under way is a copy.
    """
    under_way = min(units.cores, load.sites)
    own = {"flower": units.grid_bytes, "questions": under_way * float(report(load).down)}
    return server_memory(load, units) | own
