"""The secure sum is exact for any survivors, and every lie to a site is refused by name."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dppm_model.aggregation import secure_sum_honest_reports as honest_reports
from dppm_model.errors import (
    ChangedKey,
    ForgedShare,
    LedgerError,
    ParticipantsChanged,
    PlanError,
    StaleRound,
    SurvivorsChanged,
    TooFewSurvivors,
    UnknownSite,
    WrongReport,
    WrongSum,
)
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.phase import PhasePlan
from dppm_model.securesum import masking, shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel, Identity, agree
from dppm_model.securesum.masks import TRIES, Sum, add_pair_mask, add_self_mask, pair_key
from dppm_model.securesum.member import Member
from dppm_model.securesum.opening import Opening
from dppm_model.securesum.round_keys import Checks, RoundKeys, checked, digest_of
from tests.support.mutations import Make, as_property, nothing, twin
from tests.support.secure_sum import Federation, addressed, group_of, identities
from tests.support.seeded_rng import chi_square

SUM = Sum(number=0, bits=12, dimension=40)
Begun = tuple[Federation, dict[int, RoundKeys]]


def vectors(sum_: Sum, n: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Vectors whose sum uses the whole range of the ring, and its upper end."""
    rng = np.random.default_rng(seed)
    most = ((1 << sum_.bits) - 1) // n
    values = rng.integers(0, most, (n, sum_.dimension), endpoint=True, dtype=np.uint64)
    values[:, 0] = most
    return dict(enumerate(values))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_survivors_at_every_stage_give_exactly_their_sum(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n = data.draw(st.integers(3, 50) | st.sampled_from([1, 2, 3, 4]), label="sites")
    federation = Federation(tmp_path_factory.mktemp("sum"), n)
    t = federation.group.min_survivors
    bits = data.draw(st.integers(n.bit_length(), 40), label="bits")

    def some(of: list[int]) -> list[int]:
        size = data.draw(st.integers(t, len(of)))
        return sorted(data.draw(st.permutations(of))[:size])

    for number in (0, 3 * TRIES):  # rounds may be skipped
        sum_ = Sum(number, bits, data.draw(st.integers(1, 70), label="dimension"))
        participants = some(list(range(n)))
        reporters, helpers = some(participants), some(participants)
        given_ = vectors(sum_, n, number)
        total = federation.round(
            sum_, given_, participants=participants, reporters=reporters, helpers=helpers
        )
        expected = sum(given_[i] for i in reporters)
        np.testing.assert_array_equal(total.astype(np.uint64), expected)


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    """Five sites, round 0 begun, three must survive."""
    federation = Federation(tmp_path, 5)
    materials = federation.prepare(0, range(5))
    for i in range(5):
        federation.admit(0, materials, i)
    return federation, materials


@twin(
    "reports travel under self-masks only: each survivor's is opened alone",
    "dppm_model.securesum.masks:add_pair_mask",
    nothing,
    only="[add_self_mask]",
)
@pytest.mark.parametrize("opened", [None, "add_self_mask", "add_pair_mask"])
def test_a_masked_report_is_uniform_without_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str | None
) -> None:
    """Chi-square of all values of a constant report, also when one kind of mask was taken off."""
    if opened:
        monkeypatch.setattr(masking, opened, lambda *_, **__: None)
    federation = Federation(tmp_path, 3)
    sum_ = Sum(0, 8, 1 << 16)
    materials = federation.prepare(0, range(3))
    for i in range(3):
        federation.admit(0, materials, i)
    constant = np.full(sum_.dimension, 3)
    masked = sum_.ring.unpack(federation.members[0].begun(sum_.number).mask(sum_, constant)[0])
    expected = np.full(256, sum_.ring.length / 256)
    assert chi_square(np.bincount(masked, minlength=256), expected) > 1e-6
    bare = sum_.ring.reduce(sum_.masked(federation.group, constant, sum_.ring.zeros())[0])
    assert chi_square(np.bincount(bare, minlength=256), expected) < 1e-6  # the twin


def _before(do: Callable[..., None]) -> Make:
    """First do something to a member that it must not forget or allow."""

    def make(old: Any) -> Any:
        def act(self: Any, *args: Any) -> Any:
            do(self, *args)
            return old(self, *args)

        return act

    return make


def _forget_survivors(self: Any, number: int, _: Any) -> None:
    self._round(number, begun=True).survivors = None


@twin(
    "a site helps to open two sums of one round",
    "dppm_model.securesum.member:Member.reveal",
    _before(_forget_survivors),
)
def test_lies_about_survivors_are_refused(begun: Begun) -> None:
    federation = begun[0]
    with pytest.raises(TooFewSurvivors):
        federation.reveal(0, 0, {0, 1})
    with pytest.raises(UnknownSite):
        federation.members[0].reveal(0, dict.fromkeys({0, 1, 2, 9}, bytes(64)))
    first = federation.reveal(0, 0, {0, 1, 2, 3})
    for lie in ({0, 1, 2}, {0, 1, 2, 3, 4}, {1, 2, 3, 4}):
        with pytest.raises(SurvivorsChanged):
            federation.reveal(0, 0, lie)
        federation.members[0] = federation.member(0)
        with pytest.raises(SurvivorsChanged):  # also after a restart
            federation.reveal(0, 0, lie)
    assert first == federation.reveal(0, 0, {3, 2, 1, 0})


def _both_shares(old: Any) -> Any:
    def reveal(self: Any, number: int, survivors: Any) -> Any:
        told = old(self, number, survivors)
        return told | self._round(number).shares

    return reveal


@twin("a site reveals both shares", "dppm_model.securesum.member:Member.reveal", _both_shares)
def test_one_share_of_a_peer_and_never_both(begun: Begun) -> None:
    site = begun[0].members[0]
    both = site._memory.rounds[0].shares
    told = begun[0].reveal(0, 0, {0, 1, 2})
    for peer in (1, 2):
        assert told[peer] == both[peer][:66]
    for peer in (3, 4):
        assert told[peer] == both[peer][66:]


def secret_of(told: dict[int, dict[int, bytes]], peer: int, least: int) -> bytes:
    """Reconstruct a peer's secret from helper -> peer -> share, as a server does."""
    shares = {h + 1: shares[peer] for h, shares in told.items()}
    chosen = dict(list(shares.items())[:least])
    found = shamir.combine(chosen, shamir.weights(tuple(chosen)))
    assert found is not None and len(chosen) == least
    return found


@twin(
    "the accounting trusts the server to name the same survivors to all",
    "dppm_model.aggregation:secure_sum_honest_reports",
    lambda _: lambda sites, min_survivors, colluding: min_survivors - colluding,
)
def test_different_lists_of_survivors_open_no_smaller_sum_than_is_accounted(begun: Begun) -> None:
    """The best attack on 5 sites of which 3 must survive opens two reports, and n is two."""
    federation, materials = begun
    group = federation.group
    assert honest_reports(5, 3, 0) == 2
    given_ = {i: np.full(SUM.dimension, 10 + i) for i in (0, 1)}
    lies = {0: {2, 3}, 1: {3, 4}, 2: {2, 4}, 3: {2, 3}, 4: {4}}  # who dropped out, to whom
    told = {h: federation.reveal(h, 0, set(range(5)) - gone) for h, gone in lies.items()}
    vector = SUM.ring.zeros()
    for i in (0, 1):
        vector += SUM.ring.unpack(federation.members[i].begun(0).mask(SUM, given_[i])[0])
        add_self_mask(group, SUM, vector, i, secret_of(told, i, 3), subtract=True)
        for j in (2, 3, 4):
            key = secret_of({h: told[h] for h in told if j in lies[h]}, j, 3)
            shared = agree(key, materials[i].mask_key)
            pair = pair_key(group, SUM, (i, j), shared)
            add_pair_mask(SUM, vector, (i, j), pair, subtract=True)
    np.testing.assert_array_equal(SUM.without_checks(group, vector), given_[0] + given_[1])


@pytest.mark.parametrize("n", range(1, 25))
def test_the_honest_reports_that_are_sure(n: int) -> None:
    """Never more than the reports that everybody agrees on; at least one; all if all must come."""
    for c in range(n):
        for s in range((n + c) // 2 + 1, n + 1):
            least = honest_reports(n, s, c)
            assert 1 <= least <= s - c
            # counting: each honest helper calls n - s sites dropped, each needs s - c of them
            dropped = (n - c) * (n - s) // (s - c)
            assert least == n - c - dropped
        assert honest_reports(n, n, c) == n - c
        with pytest.raises(PlanError):
            honest_reports(n, (n + c) // 2, c)


@twin(
    "a site with another list of participants is opened alone",
    "dppm_model.securesum.keys:verify",
    lambda _: lambda *_args: True,
)
def test_a_site_that_was_told_other_participants_is_not_opened(tmp_path: Path) -> None:
    """One list of survivors for all, but site 0 masks against two sites that then drop out."""
    federation = Federation(tmp_path, 5)
    materials = federation.prepare(0, range(5))
    federation.members[0].admit(0, addressed({i: materials[i] for i in (0, 2, 3)}, 0))
    for i in range(1, 5):
        federation.admit(0, materials, i)
    federation.members[0].begun(0).mask(SUM, np.arange(SUM.dimension))
    for helper in range(1, 5):
        with pytest.raises(ParticipantsChanged, match="Site 0 did not attest"):
            federation.reveal(helper, 0, {0, 1, 4})


def _forget_participants(self: Any, number: int, _: Any) -> None:
    self._round(number).published = {}


@twin(
    "a round may be begun again with other participants",
    "dppm_model.securesum.member:Member.admit",
    _before(_forget_participants),
)
def test_participants_are_fixed_once(begun: Begun) -> None:
    federation, materials = begun
    fewer = addressed({i: materials[i] for i in range(4)}, 0)
    with pytest.raises(ParticipantsChanged):
        federation.members[0].admit(0, fewer)


def test_a_swapped_share_a_replayed_one_and_a_flipped_bit_are_named(tmp_path: Path) -> None:
    federation = Federation(tmp_path, 3)
    old, new = federation.prepare(0, range(3)), federation.prepare(1, range(3))
    good = addressed(new, 0)

    def with_share(share: bytes, **changes: bytes) -> dict[int, RoundKeys]:
        return good | {1: replace(good[1], shares={0: share}, **changes)}

    own, flipped = new[1].shares[0], bytearray(new[1].shares[0])
    flipped[50] ^= 1
    for lie in (
        with_share(new[1].shares[2]),  # meant for another
        with_share(new[2].shares[0]),  # made by another
        with_share(old[1].shares[0]),  # of another round
        with_share(bytes(flipped)),
        with_share(b""),
        with_share(own, mask_key=new[2].mask_key),  # under another mask key
        with_share(own, commitment=new[2].commitment),
    ):
        with pytest.raises(ForgedShare, match="site 1") as error:
            federation.members[0].admit(1, lie)
        assert error.value.accused == (1,)
    stolen = good | {0: replace(good[0], mask_key=good[1].mask_key)}
    with pytest.raises(StaleRound, match="does not list this site"):
        federation.members[0].admit(1, stolen)
    federation.members[0].admit(1, good)


def _forget_channel(self: Any, index: int, _: Any) -> None:
    self._memory.peers.pop(index, None)


@twin("channel keys need no signature", "dppm_model.securesum.keys:Channel.verify", nothing)
@twin(
    "the channel key of a peer may change in mid run",
    "dppm_model.securesum.member:Member._accept",
    _before(_forget_channel),
)
def test_keys_that_are_not_pinned_or_have_changed_are_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, 3)
    channels = federation.channels()
    server = Identity(bytes([77]) * 32)  # in the middle
    forged = server.sign_channel(federation.group, channels[1].public)
    mine = server.sign_channel(federation.group, Channel(bytes([9]) * 32, b"").public)
    for lie in (forged, mine, replace(channels[1], public=channels[2].public)):
        with pytest.raises(UnknownSite, match="not signed"):
            federation.members[0].prepare(0, channels | {1: lie})
    other_run = Member(
        group_of(3, run="other"), identities(3)[1], tmp_path / "other.json"
    ).channel()
    with pytest.raises(UnknownSite, match="not signed"):
        federation.members[0].prepare(0, channels | {1: other_run})
    with pytest.raises(UnknownSite, match="no site 3"):
        federation.members[0].prepare(0, channels | {3: channels[1]})
    federation.members[0].prepare(0, channels)
    (tmp_path / "1.json").unlink()  # site 1 lost its files and draws a new channel
    with pytest.raises(ChangedKey):
        federation.members[0].prepare(0, channels | {1: federation.member(1).channel()})
    stranger = Identity(bytes([78]) * 32)
    with pytest.raises(UnknownSite, match="own identity"):
        Member(federation.group, stranger, tmp_path / "stranger.json")


def _old_rounds_stay(old: Any) -> Any:
    def admit(self: Any, *args: Any) -> None:
        rounds = dict(self._memory.rounds)
        old(self, *args)
        self._memory.rounds |= rounds
        self._memory.save(self.path)

    return admit


@twin("a finished round is reopened", "dppm_model.securesum.member:Member.admit", _old_rounds_stay)
def test_rounds_are_not_mixed_or_reopened(begun: Begun) -> None:
    federation, materials = begun
    site = federation.members[0]
    with pytest.raises(StaleRound):  # prepared, but the participants are not known
        federation.prepare(TRIES, range(5))
        site.reveal(TRIES, dict.fromkeys({0, 1, 2}, bytes(64)))
    with pytest.raises(StaleRound):
        site.begun(TRIES)
    federation.reveal(0, 0, {0, 1, 2})  # round 0 is still open
    signed = {i: federation.members[i].begun(0).attest() for i in (0, 1, 2)}
    federation.admit(TRIES, federation.prepare(TRIES, range(5)), 0)
    for again in (
        lambda: site.reveal(0, signed),
        lambda: site.begun(0).mask(SUM, np.zeros(40, int)),
        lambda: site.admit(0, addressed(materials, 0)),
        lambda: federation.member(0).reveal(0, signed),
    ):
        with pytest.raises(StaleRound):
            again()
    federation.prepare(5 * TRIES, [0])
    with pytest.raises(StaleRound):
        federation.prepare(2 * TRIES, [0])
    assert len(site._memory.rounds) <= 2  # and with older seeds, older masks are gone


def _group_of_any_plan(_: Any) -> Any:
    def digest(self: Any) -> bytes:
        fields = [self.run, [key.hex() for key in self.roster], self.min_survivors]
        return hashlib.sha256(json.dumps(fields).encode()).digest()

    return cached_property(digest)


@twin(
    "the keys of a secure sum are not bound to the plan",
    "dppm_model.securesum.group:Group.digest",
    _group_of_any_plan,
)
def test_a_run_keeps_its_group(tmp_path: Path) -> None:
    federation = Federation(tmp_path, 5)
    for lie in (
        replace(federation.group, min_survivors=4),
        replace(federation.group, plan="another"),
    ):
        with pytest.raises(LedgerError, match="cannot change"):
            Member(lie, identities(5)[0], tmp_path / "0.json")
    (tmp_path / "0.json").write_text('{"group": 1}')
    with pytest.raises(LedgerError, match="damaged"):
        federation.member(0)


@twin(
    "half of the sites can open a sum",
    "dppm_model.securesum.group:Group.__post_init__",
    nothing,
    only="[2]",
)
@pytest.mark.parametrize("least", [2, 1, 0, 5])
def test_a_group_needs_more_than_half(least: int) -> None:
    roster = tuple(i.public for i in identities(4))
    with pytest.raises(PlanError, match="min_survivors"):
        Group("run", "plan", roster, least)
    with pytest.raises(PlanError, match="roster"):
        Group("run", "plan", (roster[0], *roster), 3)


def signed_masks(group: Group, opening: Opening) -> dict[int, Checks]:
    """Sign checks of masks that are all zero."""
    number, published = opening.sum.number, opening.published
    return {
        i: Checks({i: bytes(32)}, one.sign(checked(group, number, published, {i: bytes(32)})))
        for i, one in enumerate(identities(group.size))
    }


def test_the_server_holds_one_vector_however_many_report() -> None:
    """Memory while reports are added: the sum, and one report being unpacked."""
    group, sum_ = group_of(60), Sum(0, 20, 1 << 16)
    nobody = RoundKeys(bytes(32), bytes(32), bytes(64), {}, {})
    opening = Opening(group, sum_, dict.fromkeys(range(60), nobody))
    report = sum_.ring.pack(sum_.ring.zeros())
    masks_ = signed_masks(group, opening)
    tracemalloc.start()
    for i in range(60):
        opening.add(i, report, digest_of(report), masks_[i])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * sum_.ring.zeros().nbytes < 60 * len(report) / 8


def test_a_report_that_was_changed_on_the_wire_is_named(begun: Begun) -> None:
    federation, materials = begun
    opening = Opening(federation.group, SUM, materials)
    report, mask = federation.members[2].begun(0).mask(SUM, np.ones(40, int))
    flipped = bytearray(report)
    flipped[7] ^= 4
    for lie in (bytes(flipped), report[:-1], report + b"\0"):
        with pytest.raises(WrongReport, match="site 2"):
            opening.add(2, lie, digest_of(report), mask)
    opening.add(2, report, digest_of(report), mask)
    with pytest.raises(WrongReport, match="has reported"):
        opening.add(2, report, digest_of(report), mask)


def opened(begun: Begun, liar: int | None = None, helpers: int = 5) -> Opening:
    """Round 0 of which site 4 has dropped out; the liar tells a wrong share for site 1."""
    federation, materials = begun
    opening = Opening(federation.group, SUM, materials)
    given_ = vectors(SUM, 5)
    for i in range(4):
        report, mask = federation.members[i].begun(0).mask(SUM, given_[i])
        opening.add(i, report, digest_of(report), mask)
    for i in range(helpers):
        shares = federation.reveal(i, 0, range(4))
        if i == liar:
            shares[1] = shares[2]
        opening.add_shares(i, shares)
    return opening


@twin(
    "a forged share is accepted",
    "dppm_model.securesum.round_keys:is_share",
    lambda _: lambda digest, which, share: True,
)
def test_a_wrong_share_is_found_named_and_left_out(begun: Begun) -> None:
    opening = opened(begun, liar=0)
    np.testing.assert_array_equal(opening.open(), sum(list(vectors(SUM, 5).values())[:4]))
    assert opening.liars == {0}
    with pytest.raises(WrongSum, match="site 1's secret"):  # nobody to spare
        opened(begun, liar=0, helpers=3).open()
    with pytest.raises(WrongSum):
        opened(begun, helpers=2).open()


@twin(
    "a sum is opened without its check numbers",
    "dppm_model.securesum.masks:Sum.without_checks",
    lambda _: lambda self, group, total: self.ring.reduce(total)[: self.dimension],
)
def test_a_wrong_mask_is_caught(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(begun).open()
    right = masking.add_pair_mask

    def wrong(sum_, vector, pair, key, **kw):  # type: ignore[no-untyped-def]
        right(sum_, vector, pair, bytes(32) if pair == (0, 1) else key, **kw)

    monkeypatch.setattr(masking, "add_pair_mask", wrong)
    with pytest.raises(WrongSum, match="check numbers"):
        opened(begun).open()


@twin(
    "the ring is one bit too narrow for the sum",
    "dppm_model.phase:PhasePlan.bits",
    as_property(lambda value: value - 1),
)
def test_the_ring_holds_every_sum_of_the_plan() -> None:
    """All sites answer yes to everything: the largest sum must not wrap."""
    for sites, m in ((3, 5), (10, 6553), (7, 1), (100, 655)):
        phase = PhasePlan(
            name="means",
            mechanism=BinomialMechanism(1.0, 0.1, m),
            clip_norm=1.0,
            sampling_rate=1.0,
            rounds=1,
            dimension=1024,
            sites=sites,
            honest_sites=1,
            records=10,
            tail=1e-20,
        )
        assert sites * m < 1 << phase.bits <= 2 * sites * m
        ring = Sum(0, phase.bits, 4).ring
        assert int(ring.reduce(np.full(8, sites * m, ring.dtype))[0]) == sites * m


@twin(
    "reports travel under pair masks only: a late report of a drop-out is bare",
    "dppm_model.securesum.masks:add_self_mask",
    nothing,
)
def test_a_late_report_stays_masked(begun: Begun) -> None:
    """Site 4 dropped out, its mask key was opened; its report arrives late and is still uniform."""
    federation, materials = begun
    given_ = np.full(SUM.dimension, 7)
    late = SUM.ring.unpack(federation.members[4].begun(0).mask(SUM, given_)[0]).copy()
    told = {h: federation.reveal(h, 0, range(4)) for h in range(3)}
    key = secret_of(told, 4, 3)
    for j in range(4):
        shared = agree(key, materials[j].mask_key)
        pair = pair_key(federation.group, SUM, (4, j), shared)
        add_pair_mask(SUM, late, (4, j), pair, subtract=True)
    with pytest.raises(WrongSum):
        SUM.without_checks(federation.group, late)
    assert not np.array_equal(SUM.ring.reduce(late)[: SUM.dimension], given_)
