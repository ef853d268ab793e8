"""What one round asks of a site and of the server: counts, bytes on the wire, memory.

Bytes are those that `server.broadcast.Traffic` counts: values of fields, numbers as eight. There
are three exchanges, whose fields the two `wire` modules write: ``query.join`` once a run,
``train`` and ``query.open`` in each round, and one more ``query.open`` before the first. What grows
with N is keys, shares and signatures: 364 bytes down and 294 up for each peer and round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.score.arrays import array_specs
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import PHASES, kind_of, sent_arrays
from dppm_model.securesum.masks import Sum
from dppm_model.securesum.shamir import SHARE_BYTES

# Kinds whose weights join the model, and in the end their average.
GRADIENTS = tuple(n for n, kind in PHASES.items() if issubclass(kind.question, GradientQuery))

NUMBER, KEY, SIGNATURE, DIGEST, TAG = 8, 32, 64, 32, 16
SEALED = 2 * SHARE_BYTES + TAG  # a share of both secrets, encrypted for its holder
DIGESTS = 2 * DIGEST  # of both shares for one holder
CHECKS = 32  # the check numbers of one mask

# Peak memory, by tracemalloc: vectors of D numbers of eight bytes that are alive at once, and
# Python's objects for the keys and shares of a peer, of a pair of sites.
SITE_VECTORS, SERVER_VECTORS = 10, 6
PEER_BYTES, PAIR_BYTES = 4060, 1960
MODELS = 3  # the bytes received, their arrays, and the network or closed form built of them
LEARNER = 4 + 2 * 8  # bytes a weight: its average (float32), and Adam's moments (float64)


@dataclass(frozen=True)
class Traffic:
    """Bytes of one site in one round: ``up`` to the server and ``down`` from it."""

    up: int
    down: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.up + other.up, self.down + other.down)


@dataclass(frozen=True)
class Workload:
    """One round of a phase, with identical sites and no drop-outs.

    Attributes
    ----------
    phase
        As planned.
    records_per_person
        K, the most records that a unit answers through.
    plan_bytes, model_bytes
        The plan's JSON, which every question carries, and the arrays that ``train`` carries.
    rounds
        Rounds of the whole run.
    """

    phase: PhasePlan
    records_per_person: int
    plan_bytes: int
    model_bytes: int
    rounds: int

    @property
    def kind(self) -> str:
        """The kind of the phase."""
        return kind_of(self.phase.name).name

    @property
    def records(self) -> float:
        """Records that a site is expected to ask."""
        return self.phase.divisor / self.phase.sites * self.records_per_person

    @property
    def numbers(self) -> float:
        """Numbers that all sites compute: a vector for each record, a report for each site."""
        return self.phase.sites * (self.records * self.phase.dimension + self.phase.report_length)

    @property
    def report_bytes(self) -> int:
        """Bytes of a masked report."""
        return Sum(0, self.phase.bits, self.phase.report_length).ring.packed_bytes

    @property
    def join(self) -> Traffic:
        """Sign a nonce of 32 bytes; show an identity and a channel key. Once a run."""
        return Traffic(2 * KEY + 2 * SIGNATURE, self.plan_bytes + KEY)

    @property
    def prepare(self) -> Traffic:
        """Receive all channel keys; answer with keys and sealed shares for the next round."""
        n = self.phase.sites
        published = KEY + DIGEST + SIGNATURE + n * DIGESTS
        channels = NUMBER + n * (NUMBER + KEY + SIGNATURE)
        return Traffic(published + (n - 1) * (NUMBER + SEALED), channels)

    @property
    def report(self) -> Traffic:
        """Receive the question, the model, all keys and own shares; answer with a masked report."""
        n = self.phase.sites
        published = NUMBER + KEY + DIGEST + DIGESTS
        question = self.plan_bytes + 3 * NUMBER + self.model_bytes
        signed = DIGEST + SIGNATURE + CHECKS + SIGNATURE
        return Traffic(self.report_bytes + signed, question + n * published + (n - 1) * SEALED)

    @property
    def reveal(self) -> Traffic:
        """Receive the survivors' signatures; answer with a share for each participant."""
        n = self.phase.sites
        survivors = NUMBER + n * (NUMBER + SIGNATURE)
        return Traffic(n * (NUMBER + SHARE_BYTES), self.plan_bytes + survivors)

    def traffic(self, number: int | None = None) -> Traffic:
        """Return what one site sends and receives in a round.

        Parameters
        ----------
        number
            Of the round, over all phases: the first also joins and prepares itself, the last
            prepares no other. Any other round by default.
        """
        total = self.report + self.reveal
        if number != self.rounds - 1:
            total += self.prepare
        if number == 0:
            total += self.join + self.prepare + Traffic(0, self.plan_bytes)
        return total

    @property
    def site_memory(self) -> dict[str, float]:
        """Peak bytes of a site beside Python and its libraries, by what holds them."""
        return {
            "report": 8.0 * SITE_VECTORS * self.phase.report_length,
            "model": float(MODELS * self.model_bytes),
            "keys": float(PEER_BYTES * self.phase.sites),
        }

    @property
    def server_memory(self) -> dict[str, float]:
        """Peak bytes of the server beside Python and its libraries, by what holds them.

        Reports are added as they come, so none is counted; shares are kept for two rounds.
        """
        weights = self.phase.dimension if self.kind in GRADIENTS else 0
        return {
            "sum": 8.0 * SERVER_VECTORS * self.phase.report_length,
            "model": float(MODELS * self.model_bytes),
            "learner": float(LEARNER * weights),
            "pairs": float(PAIR_BYTES * self.phase.sites**2),
        }

    def to_json(self) -> dict[str, object]:
        """Return bytes and memory for scripts."""
        return {
            "up_bytes": self.traffic().up,
            "down_bytes": self.traffic().down,
            "site_memory": self.site_memory,
            "server_memory": self.server_memory,
        }


def workloads(plan: Plan) -> tuple[Workload, ...]:
    """Return the workload of a round of each phase of a plan."""
    text, found = len(plan.to_json()), []
    released: frozenset[str] = frozenset()
    for p in plan.phases:
        kind = kind_of(p.name)
        later = kind.question.optional - released
        size = arrays_size(plan.model, sent_arrays(p.name, plan.model) - later)
        found.append(Workload(p, plan.records_per_person, text, size, plan.rounds))
        released |= kind.releases
    return tuple(found)


def run_traffic(loads: tuple[Workload, ...]) -> list[Traffic]:
    """Return the bytes of one site in each round of a run, in order."""
    by_round = [load for load in loads for _ in range(load.phase.rounds)]
    return [load.traffic(number) for number, load in enumerate(by_round)]


def arrays_size(model: ModelConfig, names: frozenset[str]) -> int:
    """Return the bytes of some arrays as they travel."""
    specs = array_specs(model)
    return len(save({n: np.zeros(specs[n].shape, specs[n].dtype) for n in names}))
