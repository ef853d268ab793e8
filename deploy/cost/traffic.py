"""Bytes on the wire, as `server.broadcast.Traffic` counts them: values of fields, numbers as eight.

Three exchanges, whose fields `dppm_model.securesum.wire` writes: ``query.join`` once a run,
``train`` and ``query.open`` in each round, and one more ``query.open`` before the first. What grows
with N is keys, shares and signatures: 364 bytes down and 294 up for each peer and round.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.cost.load import Load
from dppm_model.securesum.shamir import SHARE_BYTES

NUMBER, KEY, SIGNATURE, DIGEST, TAG = 8, 32, 64, 32, 16
SEALED = 2 * SHARE_BYTES + TAG  # a share of both secrets, encrypted for its holder
DIGESTS = 2 * DIGEST  # of both shares for one holder
CHECKS = 32  # what is said of one mask
LIST_ITEMS = 15  # entries of lists for each peer in a round's four messages of a site


@dataclass(frozen=True)
class Traffic:
    """Bytes of one site in one round: ``up`` to the server and ``down`` from it."""

    up: int
    down: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)


def join(load: Load) -> Traffic:
    """Sign a nonce of 32 bytes; show an identity and a channel key."""
    return Traffic(2 * KEY + 2 * SIGNATURE, load.plan_bytes + KEY)


def prepare(load: Load) -> Traffic:
    """Send everybody's channel key; answer with keys and sealed shares for the next round."""
    n = load.sites
    channels = NUMBER + n * (NUMBER + KEY + SIGNATURE)
    published = KEY + DIGEST + SIGNATURE + n * DIGESTS
    return Traffic(published + (n - 1) * (NUMBER + SEALED), channels)


def report(load: Load) -> Traffic:
    """Send the question, the model and the participants' keys and shares; answer masked."""
    n = load.sites
    published = NUMBER + KEY + DIGEST + DIGESTS
    question = load.plan_bytes + 3 * NUMBER + load.model_bytes
    said = SIGNATURE + CHECKS + SIGNATURE
    return Traffic(
        load.ring.packed_bytes + DIGEST + said, question + n * published + (n - 1) * SEALED
    )


def reveal(load: Load) -> Traffic:
    """Send the survivors' signatures; answer with a share for each participant."""
    n = load.sites
    survivors = NUMBER + n * (NUMBER + SIGNATURE)
    return Traffic(n * (NUMBER + SHARE_BYTES), load.plan_bytes + survivors)


def site_traffic(load: Load, number: int | None = None) -> Traffic:
    """Return what one site sends and is sent in a round, if nobody drops out.

    Parameters
    ----------
    number
        Of the round, over all phases: the first also joins and prepares itself, the last prepares
        no other. Any other round by default.
    """
    total = report(load) + reveal(load)
    if number != load.rounds - 1:
        total += prepare(load)
    if number == 0:
        total += join(load) + prepare(load) + Traffic(0, load.plan_bytes)
    return total
