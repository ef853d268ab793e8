"""A site that lies: what it answers, changed as only it could, with its own keys."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message

from client.securesum import SecureSumSite
from client.site import Site
from dppm_model.run import Run
from dppm_model.securesum import shamir, wire
from dppm_model.securesum.keys import joined, seal
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask
from dppm_model.securesum.member import Member
from dppm_model.securesum.round_keys import (
    Checks,
    RoundKeys,
    checked,
    commitment,
    digest_of,
    digests,
    statement,
)
from tests.support.flaky_grid import check_declared
from tests.support.seeded_rng import SeededRNG

Records = dict[str, ConfigRecord]
Change = Callable[[list[bytes], int], list[bytes]]  # of all shares, with the place of a peer
HALF = shamir.SHARE_BYTES


class Liar:
    """Site ``node`` of a run folder, by its own files."""

    def __init__(self, run: Run, node: int) -> None:
        self.run, self.node, self.name = run, node, f"site-{node:04d}"
        self.plan = run.plan()
        self.folder = run.sites / f"{node:04d}"
        keys = tomllib.loads(run.roster.read_text())
        self.places = {n: sorted(keys.values()).index(k) for n, k in keys.items()}
        self.index = self.places[self.name]

    @property
    def site(self) -> Site:
        return Site(self.folder, SeededRNG(self.node))

    @property
    def member(self) -> Member:
        return SecureSumSite(self.site, self.plan).member()

    @property
    def peer(self) -> int:
        """The place of an honest site."""
        return self.places[f"site-{(self.node + 1) % self.plan.sites:04d}"]

    def participant(self, sum_: Sum) -> int:
        """The place of an honest site that takes part in a try: `peer` if it does."""
        others = [i for i in self.member.begun(sum_.number).published if i != self.index]
        return self.peer if self.peer in others else others[0]

    def sum(self, asked: Records) -> Sum:
        question = asked["question"]
        return Sum.of(self.plan, *(int(question[k]) for k in ("phase", "round", "attempt")))

    def deal(
        self,
        asked: Records,
        change: Change,
        *,
        shown: Change | None = None,
        public: bytes | None = None,
    ) -> RoundKeys:
        """Deal shares that are changed; ``shown`` are those that it commits itself to."""
        number, channels = wire.read_channels(asked["channels"])
        member = self.member
        dealing = member._dealing(number)
        honest = dealing.shares(range(member.group.size))
        sent, said = (act(honest, self.peer) for act in (change, shown or change))
        dealt = {i: digests(share) for i, share in enumerate(said)}
        public = public or dealing.mask_key
        bound = commitment(member.group, number, self.index, dealt)
        agreed = member._memory.agreed
        sealed = {
            i: seal(dealing._key(agreed[i], self.index, i), sent[i], public + bound)
            for i in channels
            if i != self.index
        }
        signature = member._identity.sign(statement(member.group, number, public, bound))
        member._memory.rounds[number].own = public + bound  # so that it takes part
        member._memory.save(member.path)
        return RoundKeys(public, bound, signature, dealt, sealed)

    def masked(self, asked: Records, reply: Records, change: Callable[[Any], Any]) -> None:
        """Change the masked vector, and its digest with it."""
        ring = self.sum(asked).ring
        masked = ring.pack(change(ring.unpack(bytes(reply["report"]["masked"])).copy()))
        reply["report"]["masked"], reply["report"]["digest"] = masked, digest_of(masked)

    def sign(self, asked: Records, values: dict[int, bytes]) -> Checks:
        """Sign whatever it wants to have said of its masks."""
        sum_, member = self.sum(asked), self.member
        published = member.begun(sum_.number).published
        said = checked(member.group, sum_.number, published, values)
        return Checks(values, member._identity.sign(said))

    def key_with(self, sum_: Sum, peer: int) -> bytes:
        return self.member.begun(sum_.number)._pair_key(sum_, peer)


def flip(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


Lie = Callable[[Liar, Records, Records], None]


def _material(**deal: Any) -> Lie:
    def lie(liar: Liar, asked: Records, reply: Records) -> None:
        if "material" in reply:
            fields = wire.write_material(liar.deal(asked, **deal))
            reply["material"] = ConfigRecord(fields)

    return lie


def _edit(record: str, change: Callable[[Liar, ConfigRecord], None]) -> Lie:
    def lie(liar: Liar, asked: Records, reply: Records) -> None:
        if record in reply:
            change(liar, reply[record])

    return lie


def _set(record: str, field: str, change: Callable[[Any], Any]) -> Lie:
    return _edit(record, lambda _, fields: fields.__setitem__(field, change(fields[field])))


def _random_half(seed: int) -> bytes:
    drawn = np.random.default_rng(seed).bytes(HALF)
    return (int.from_bytes(drawn) % shamir.PRIME).to_bytes(HALF)


def _on_no_polynomial(count: int) -> list[bytes]:
    return [_random_half(i) for i in range(count)]


def _of_another_secret(count: int) -> list[bytes]:
    return shamir.split(bytes([7]) * 32, range(1, count + 1), 4, bytes(32))


def _half(which: int, drawn: Callable[[int], list[bytes]]) -> Change:
    """Change the shares of the self-mask (0) or of the mask key (1)."""

    def change(shares: list[bytes], _: int) -> list[bytes]:
        kept = [(s[:HALF], s[HALF:]) for s in shares]
        new = zip(drawn(len(shares)), kept, strict=True)
        return [d + k[1] if which == 0 else k[0] + d for d, k in new]

    return change


def _for_one(content: bytes) -> Change:
    return lambda shares, peer: [content if i == peer else s for i, s in enumerate(shares)]


def _for_all(content: bytes) -> Change:
    return lambda shares, _: [content] * len(shares)


def _honest(shares: list[bytes], _: int) -> list[bytes]:
    return shares


def joins_as_another(liar: Liar, asked: Records, reply: Records) -> None:
    """Shows the identity, channel and signatures of an honest site."""
    if "member" in reply:
        peer = Liar(liar.run, (liar.node + 1) % liar.plan.sites)
        member = peer.member
        channel, proof = member.channel(), member.join(bytes(32))
        fields = wire.write_member(peer.site.identity.public, channel, proof)
        reply["member"] = ConfigRecord(fields)


def joins_with_a_key_of_low_order(liar: Liar, asked: Records, reply: Records) -> None:
    if "member" in reply:
        member, public = liar.member, bytes(32)
        channel = member._identity.sign_channel(member.group, public)
        nonce = bytes(asked["join"]["nonce"])
        proof = member._identity.sign(joined(member.group, nonce, public))
        reply["member"] = ConfigRecord(wire.write_member(liar.site.identity.public, channel, proof))


def masks_one_pair_wrongly(liar: Liar, asked: Records, reply: Records) -> None:
    """And says of it what fits its report."""
    sum_ = liar.sum(asked) if "attempt" in asked["question"] else None
    if "report" in reply and sum_:

        def change(vector: Any) -> Any:
            peer = liar.participant(sum_)
            key = liar.key_with(sum_, peer)
            add_pair_mask(sum_, vector, (liar.index, peer), key, subtract=True)
            return vector

        liar.masked(asked, reply, change)
    if "checks" in reply and sum_:
        said = dict(wire.read_checks(reply["checks"]).values)
        if liar.participant(sum_) in said:
            said[liar.participant(sum_)] = bytes(32)
        reply["checks"] = ConfigRecord(wire.write_checks(liar.sign(asked, said)))


def says_something_else_of_its_self_mask(liar: Liar, asked: Records, reply: Records) -> None:
    """The report is masked by another self-mask than it deals, and says so of it."""
    if "report" in reply:
        sum_, member = liar.sum(asked), liar.member
        mask = sum_.ring.zeros()
        add_self_mask(member.group, sum_, mask, liar.index, bytes([9]) * 32)
        true = sum_.ring.zeros()
        secret = member._dealing(sum_.number).secrets[1]
        add_self_mask(member.group, sum_, true, liar.index, secret)
        liar.masked(asked, reply, lambda vector: vector - true + mask)
        said = liar.sign(asked, {liar.index: sum_.residue(member.group, mask)})
        reply["report"]["checks"] = said.values[liar.index]
        reply["report"]["checks_signature"] = said.signature


def _says_of_masks(change: Callable[[bytes], bytes], *, signed: bool = True) -> Lie:
    def lie(liar: Liar, asked: Records, reply: Records) -> None:
        if "checks" in reply:
            said = {i: change(v) for i, v in wire.read_checks(reply["checks"]).values.items()}
            checks = liar.sign(asked, said)
            if not signed:
                checks = Checks(said, bytes(64))
            reply["checks"] = ConfigRecord(wire.write_checks(checks))

    return lie


def says_wrong_of_its_self_mask(liar: Liar, asked: Records, reply: Records) -> None:
    if "report" in reply:
        said = liar.sign(asked, {liar.index: flip(bytes(reply["report"]["checks"]))})
        reply["report"]["checks"] = said.values[liar.index]
        reply["report"]["checks_signature"] = said.signature


def _complains(of: Callable[[Liar], list[int]], kinds: tuple[str, ...]) -> Lie:
    def lie(liar: Liar, asked: Records, reply: Records) -> None:
        accused = {"error": "ForgedShare", "accused": of(liar)}
        for name in kinds:
            if name in reply:
                del reply[name]
                refused = "refusal" if name == "report" else f"no_{name}"
                reply[refused] = ConfigRecord(accused)

    return lie


def _others(liar: Liar) -> list[int]:
    return [i for i in range(liar.plan.sites) if i != liar.index]


LIES: dict[str, Lie] = {
    "shares short": _material(change=_for_one(b"x"), shown=_honest),
    "shares long": _material(change=_for_one(b"y" * 10_000), shown=_honest),
    "a share wrong": _material(change=_for_one(b"\1" * 132), shown=_honest),
    "shares wrong": _material(change=_for_all(b"\1" * 132), shown=_honest),
    "a share out of range": _material(change=_for_one(b"\xff" * 132)),
    "shares out of range": _material(change=_for_all(b"\xff" * 132)),
    "shares of others": _material(change=lambda s, _: [*s[1:], s[0]], shown=_honest),
    "self-mask on no polynomial": _material(change=_half(0, _on_no_polynomial)),
    "mask key on no polynomial": _material(change=_half(1, _on_no_polynomial)),
    "another self-mask is dealt": _material(change=_half(0, _of_another_secret)),
    "another mask key is dealt": _material(change=_half(1, _of_another_secret)),
    "mask key of low order": _material(change=_honest, public=bytes(32)),
    "another mask key": _material(change=_honest, public=bytes([9]) + bytes(31)),
    "mask key of 31 bytes": _set("material", "mask_key", lambda k: k[:31]),
    "mask key changed": _set("material", "mask_key", flip),
    "material unsigned": _set("material", "signature", lambda _: bytes(64)),
    "signature of 5 bytes": _set("material", "signature", lambda _: bytes(5)),
    "commitment changed": _set("material", "commitment", flip),
    "digests missing": _set("material", "digests", lambda d: d[:-1]),
    "digests changed": _set("material", "digests", lambda d: [flip(d[0]), *d[1:]]),
    "share missing": _edit(
        "material", lambda _, f: f.update(sites=f["sites"][1:], shares=f["shares"][1:])
    ),
    "share for a stranger": _edit(
        "material",
        lambda _, f: f.update(sites=[*f["sites"], 77], shares=[*f["shares"], bytes(148)]),
    ),
    "no list": _set("material", "sites", lambda _: 5),
    "joins as another": joins_as_another,
    "joins with a key of low order": joins_with_a_key_of_low_order,
    "joins unsigned": _set("member", "proof", lambda _: bytes(64)),
    "garbage": lambda liar, asked, reply: (
        liar.masked(asked, reply, lambda v: v + v.dtype.type(3)) if "report" in reply else None
    ),
    "garbage in the check numbers": lambda liar, asked, reply: (
        liar.masked(asked, reply, lambda v: np.append(v[:-1], v[-1:] + v.dtype.type(1)))
        if "report" in reply
        else None
    ),
    "report too short": _set("report", "masked", lambda m: m[:-1]),
    "report too long": _set("report", "masked", lambda m: m + b"0"),
    "report is a number": _set("report", "masked", lambda _: 7),
    "wrong digest": _set("report", "digest", flip),
    "participants unsigned": _set("report", "signature", lambda s: flip(s)),
    "checks unsigned": _set("report", "checks_signature", lambda s: flip(s)),
    "wrong checks": says_wrong_of_its_self_mask,
    "another self-mask is used": says_something_else_of_its_self_mask,
    "one pair is masked wrongly": masks_one_pair_wrongly,
    "shares told wrongly": _set("shares", "shares", lambda s: [flip(s[0]), *s[1:]]),
    "all shares told wrongly": _set("shares", "shares", lambda s: [flip(x) for x in s]),
    "shares told of others": _set("shares", "shares", lambda s: [*s[1:], s[0]]),
    "too few shares told": _edit(
        "shares", lambda _, f: f.update(sites=f["sites"][1:], shares=f["shares"][1:])
    ),
    "too many shares told": _edit(
        "shares", lambda _, f: f.update(sites=[*f["sites"], 9], shares=[*f["shares"], bytes(66)])
    ),
    "told shares are short": _set("shares", "shares", lambda s: [x[:5] for x in s]),
    "complains of one": _complains(lambda liar: [liar.peer], ("report",)),
    "complains of all": _complains(_others, ("report",)),
    "complains of all as it prepares": _complains(_others, ("material",)),
    "complains of one as it helps": _complains(lambda liar: [liar.peer], ("shares",)),
    "complains of itself and strangers": _complains(lambda liar: [liar.index, 99], ("report",)),
    "complains of nonsense": _complains(lambda _: [-1], ("report", "material", "shares")),
    "refuses to report": _complains(lambda _: [], ("report",)),
    "refuses to help": _complains(lambda _: [], ("shares",)),
    "refuses to prepare": _complains(lambda _: [], ("material",)),
}
# These need a drop-out, or a spoilt sum, to be heard at all.
WITH_A_DROP_OUT: dict[str, Lie] = {
    "wrong of its mask with a drop-out": _says_of_masks(flip),
    "unsigned of its mask with a drop-out": _says_of_masks(flip, signed=False),
    "a wrong mask with a drop-out": masks_one_pair_wrongly,  # only opened keys show it
}


def edits(liar: Liar, lie: Lie) -> tuple[Callable[..., None], Callable[..., None]]:
    """For `FlakyGrid`: keep what the liar is asked, then change what it answers.

    What the others answer is declared, whatever it does.
    """
    asked: dict[str, Records] = {}

    def edit(site: int, message: Message) -> None:
        if site == liar.node:
            asked["now"] = dict(message.content.config_records)

    def seen(site: int, reply: Message) -> None:
        if site != liar.node:
            check_declared(reply)
        elif not reply.has_error():
            records: Any = reply.content.config_records
            lie(liar, asked["now"], records)

    return edit, seen
