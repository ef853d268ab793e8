"""Unit costs: what one record, coordinate, pair of sites or message costs on one core.

`LAPTOP` was measured by ``python -m tests.benchmarks.unit_costs`` on the machine that it names; the
same benchmark measures any other. Seconds of a core that does nothing else (of the wall clock where
one waits: ``flush``, ``start`` to ``up_byte``, ``poll``), unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of phase.

    Attributes
    ----------
    model
        To read the round's model and what follows from it, once in every process.
    query
        To build the question, for each site.
    record
        To read a record, form its vector, clip and add it.
    coordinate
        Of a round's estimate, for the server to learn from it.
    """

    model: float
    query: float
    record: float
    coordinate: float


@dataclass(frozen=True)
class Units:
    """Unit costs of one machine.

    Attributes
    ----------
    machine
        Where they were measured.
    parallel
        How many cores' work the machine does with ``cores`` of them busy (two threads of one core
        do less than two cores).
    cores
        How many of them virtual sites get.
    kinds
        By kind of phase.
    gradient
        A record's clipped gradient, per trained parameter of a network of matrix products.
    row
        To average the vectors of a person's records, per record and coordinate.
    unit
        To list and sample a unit (record or person) that a site holds, per round.
    rotate
        Per coordinate and level of the Hadamard transform.
    answer, answer_word, answer_table
        Randomized response per coordinate: what each costs however many answers are asked, per 64
        coins up to 2^14 answers, and per 2^14 answers beyond.
    decode
        From the sum to the estimate, per coordinate.
    mask_byte
        To expand a mask and add it, per byte.
    pack, unpack
        Per number and plane of bits.
    flush
        Until a written file, or its folder, is on disk (fsync), while as many others wait for
        theirs as there are cores.
    site
        A site in a round, whatever the plan: files, locks, ledger, audit log.
    peer
        A site's work for each peer in a round: agree on a key, derive, seal, unseal, verify its
        signature, remember.
    meet
        The same once a run: verify and agree on the channel.
    field
        One step of a polynomial over Shamir's field, to make shares.
    server
        The server in a round, whatever the plan, beside what it learns.
    server_site, server_pair
        The server's work for each site, and for each pair of sites: shares pass through it.
    combine, weight
        Per share that is combined, and per pair of helpers whose Lagrange weights are computed.
    account
        Epsilon of the rounds so far, once a round.
    certify
        A phase's mu, once in every process.
    start
        To start Flower's SuperLink, Ray and the app, and to stop them.
    exchange, message, item
        Flower's simulation: an exchange with all sites, a question with its reply, an entry of a
        list in either.
    down_byte, up_byte
        A byte of a question or a reply there.
    watch
        When the simulation looks whether a node has messages: for each that any node has.
    copied_site, copied_item
        The in-process backend: a site's two messages in a round, an entry of a list.
    poll
        Deployment: until all SuperNodes have fetched a message and the server has the replies.
    site_bytes, server_bytes
        Peak bytes of a process that answers, or learns from, every phase of the plan, beside what
        grows with numbers of a report and with sites.
    actor_bytes, grid_bytes
        What Ray adds to a site's process, and Flower to the server's, in a simulation.
    cell_bytes, server_cell_bytes
        Bytes of memory per number of a report, at a site and at the server.
    peer_bytes, pair_bytes
        Bytes of memory for each peer at a site, and for each pair of sites at the server.
    """

    machine: str
    parallel: float
    cores: int
    kinds: Mapping[str, Kind]
    gradient: float
    row: float
    unit: float
    rotate: float
    answer: float
    answer_word: float
    answer_table: float
    decode: float
    mask_byte: float
    pack: float
    unpack: float
    flush: float
    site: float
    peer: float
    meet: float
    field: float
    server: float
    server_site: float
    server_pair: float
    combine: float
    weight: float
    account: float
    certify: float
    start: float
    exchange: float
    message: float
    item: float
    down_byte: float
    up_byte: float
    watch: float
    copied_site: float
    copied_item: float
    poll: float
    site_bytes: float
    server_bytes: float
    actor_bytes: float
    grid_bytes: float
    cell_bytes: float
    server_cell_bytes: float
    peer_bytes: float
    pair_bytes: float


LAPTOP = Units(
    machine="AMD EPYC, Linux",
    parallel=1.71,
    cores=2,
    kinds={
        "means": Kind(0.000364, 0.00237, 1.57e-5, 2.3e-7),
        "covariance": Kind(1.64e-6, 0.0289, 0.00017, 6.96e-7),
        "components": Kind(0.00111, 0.00177, 2.19e-5, 2.89e-6),
        "component_covariance": Kind(0.00223, 0.0184, 5.27e-5, 2.14e-7),
        "fine_covariance": Kind(0.00246, 0.0313, 4.5e-5, 5.23e-7),
        "score": Kind(0.00438, 0.00831, 0.00135, 5.51e-8),
        "detail": Kind(0.05, 0.0, 0.007, 1e-7),  # by tests/benchmarks/round.py, and judged
    },
    gradient=2.11e-10,
    row=1.49e-9,
    unit=1.35e-7,
    rotate=1.99e-9,
    answer=1.88e-7,
    answer_word=3.23e-9,
    answer_table=3.15e-7,
    decode=3.4e-8,
    mask_byte=2.87e-10,
    pack=1.39e-9,
    unpack=1.67e-9,
    flush=0.000193,
    site=0.0057,
    peer=0.000377,
    meet=0.000173,
    field=1.63e-7,
    server=0.00176,
    server_site=0.000708,
    server_pair=1.04e-5,
    combine=4.7e-7,
    weight=5.02e-7,
    account=0.0335,
    certify=0.222,
    start=24.6,
    exchange=0.0424,
    message=0.00506,
    item=1.28e-7,
    down_byte=2.44e-9,
    up_byte=1.54e-9,
    watch=4.86e-6,
    copied_site=0.000147,
    copied_item=1.81e-7,
    poll=3.5,
    site_bytes=5.49e8,
    server_bytes=6.26e8,
    actor_bytes=1.01e8,
    grid_bytes=1.02e8,
    cell_bytes=82.0,
    server_cell_bytes=42.5,
    peer_bytes=4060.0,
    pair_bytes=1960.0,
)
