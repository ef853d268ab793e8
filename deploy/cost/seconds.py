"""Seconds of one core for a round: of a site, of the server, of the messages between them.

Each function returns its terms by name, so that one can see which of them dominates.
"""

from __future__ import annotations

import math

from deploy.cost.load import Load
from deploy.cost.traffic import LIST_ITEMS, report, site_traffic
from deploy.cost.units import Units
from dppm_model.mechanism.fair_binomial import BATCH_BITS
from dppm_model.securesum.masks import CHECKS

Terms = dict[str, float]

SITE_FLUSHES = 13  # files and folders that a site flushes to disk in a round, before it goes on
SERVER_FLUSHES = 11
WATCH_PAUSE = 0.1  # seconds between two looks of Flower's simulation at all nodes


def whole(terms: Terms) -> float:
    """Add up terms."""
    return sum(terms.values())


def largest(terms: Terms) -> str:
    """Name the term that dominates."""
    return max(terms, key=lambda name: terms[name])


def answer_seconds(answers: int, units: Units) -> float:
    """Return the seconds to answer for one coordinate m times: about 2 m coins are compared."""
    batches, rest = answers >> BATCH_BITS, min(answers, (1 << BATCH_BITS) - 1)
    return units.answer + 2 * (rest / 64 * units.answer_word + batches * units.answer_table)


def record_seconds(load: Load, units: Units) -> float:
    """Return the seconds of one record: read, asked, clipped and added."""
    averaged = units.row * load.phase.dimension if load.records_per_person > 1 else 0.0
    return units.kinds[load.kind].record + averaged


def site_seconds(load: Load, units: Units) -> Terms:
    """Return what a site does in a round.

    It expands a mask with every other site, one of its own and four of the check numbers; splits
    two secrets in N shares of degree t - 1; and agrees with every other site on a key, and verifies
    its signature (``keys``).
    """
    n, t, cells = load.sites, load.threshold, load.cells
    return {
        "files": units.site,
        "records": units.kinds[load.kind].query
        + load.records * record_seconds(load, units)
        + load.units * units.unit,
        "rotation": cells * math.log2(load.phase.rotation.block) * units.rotate,
        "answers": cells * answer_seconds(load.answers, units),
        "masks": (n + CHECKS) * load.mask_bytes * units.mask_byte
        + cells * load.planes * units.pack,
        "disk": SITE_FLUSHES * units.flush,
        "keys": (n - 1) * units.peer,
        "shares": 2 * (n + 1) * (t - 1) * units.field,
    }


def server_seconds(load: Load, units: Units) -> Terms:
    """Return what the server does in a round, if nobody drops out.

    It verifies three signatures of each site, checks the sum before and after it has taken a
    self-mask of each off it, and combines t shares for each; all shares of the next round, one for
    each pair of sites, pass through it.
    """
    n, t, cells = load.sites, load.threshold, load.cells
    return {
        "files": units.server,
        "disk": SERVER_FLUSHES * units.flush,
        "sites": n * units.server_site,
        "reports": n * cells * load.planes * units.unpack,
        "pairs": n * n * units.server_pair,
        "shares": n * t * units.combine + t * t * units.weight,
        "masks": (n + 2 * CHECKS) * load.mask_bytes * units.mask_byte,
        "learning": cells * units.decode + load.phase.dimension * units.kinds[load.kind].coordinate,
        "accounting": units.account,
    }


def message_seconds(load: Load, units: Units, backend: str) -> Terms:
    """Return what it takes to move a round's messages of all sites in a simulation."""
    n, items = load.sites, LIST_ITEMS * load.sites**2
    if backend == "inprocess":
        return {"messages": n * units.copied_site, "keys moved": items * units.copied_item}
    moved = site_traffic(load)
    return {
        "messages": 2 * units.exchange + 2 * n * units.message,
        "keys moved": items * units.item,
        "bytes moved": n * (moved.down * units.down_byte + report(load).up * units.up_byte),
    }


def watching(load: Load, units: Units) -> float:
    """Return the share of a core with which Flower's simulation looks for messages, all the time.

    One thread goes through all messages, half of N on the average, for each node, and pauses.
    """
    look = load.sites**2 / 2 * units.watch
    return look / (look + WATCH_PAUSE)


def first_seconds(load: Load, units: Units) -> Terms:
    """Return what a site does once a run: it meets its peers, and prepares the first round."""
    n, t = load.sites, load.threshold
    return {
        "keys": (n - 1) * units.meet,
        "shares": 2 * n * (t - 1) * units.field,
    }
