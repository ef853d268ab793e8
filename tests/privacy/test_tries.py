"""Tries of a round: one is opened, whatever the server asks; and no honest site is found guilty."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dppm_model.errors import ForgedShare, NotGuilty, RoundOpened, StaleRound, UnknownSite
from dppm_model.securesum import masks, shamir
from dppm_model.securesum.keys import agree, seal, usable
from dppm_model.securesum.masks import TRIES, Sum, add_pair_mask
from dppm_model.securesum.opening import Opening
from dppm_model.securesum.proof import Proof
from dppm_model.securesum.ring import Ring
from dppm_model.securesum.round_keys import (
    KEY,
    SELF,
    Checks,
    RoundKeys,
    checked,
    digest_of,
    digests,
)
from tests.support.mutations import nothing, twin
from tests.support.secure_sum import Federation, addressed, identities

SUM = Sum(number=0, bits=12, dimension=40)
AGAIN = replace(SUM, number=1)
Guilty = tuple[Opening, Proof]
TALLIES = np.arange(40)
HALVES = slice(0, shamir.SHARE_BYTES), slice(shamir.SHARE_BYTES, None)


def begin(federation: Federation, number: int, sites: range = range(5)) -> dict[int, RoundKeys]:
    materials = federation.prepare(number, sites)
    for i in sites:
        federation.admit(number, materials, i)
    return materials


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Five sites, four must survive; the first try of round 0 has begun."""
    made = Federation(tmp_path, 5, min_survivors=4)
    begin(made, 0)
    return made


@twin("a site opens two tries of a round", "dppm_model.securesum.member:Member._unopened", nothing)
def test_a_round_that_was_opened_is_not_tried_again(federation: Federation) -> None:
    """Neither a try that is prepared only now, nor one that was when the first was opened."""
    channels, site = federation.channels(), federation.members[0]
    materials = federation.prepare(1, range(5))
    federation.reveal(0, 0, range(5))
    signed = dict.fromkeys(range(5), bytes(64))
    for restart in (False, True):
        site = federation.members[0] = federation.member(0) if restart else site
        for number in (1, 2, TRIES - 1):
            for ask in (
                lambda n, s=site: s.prepare(n, channels),
                lambda n, s=site: s.admit(n, addressed(materials, 0)),
                lambda n, s=site: s.admit(n, addressed(materials, 0), helps=True),
                lambda n, s=site: s.begun(n),
                lambda n, s=site: s.reveal(n, signed),
            ):
                with pytest.raises(RoundOpened, match="Round 0 was opened in try 0"):
                    ask(number)
    begin(federation, TRIES)  # the next round
    with pytest.raises(StaleRound):
        site.prepare(1, channels)


def test_who_has_begun_another_try_opens_the_first_no_more(federation: Federation) -> None:
    begin(federation, 1)
    with pytest.raises(StaleRound):
        federation.reveal(0, 0, range(5))
    federation.reveal(0, 1, range(5))


@pytest.mark.parametrize("split", product((0, 1), repeat=4), ids=str)
def test_two_tries_cannot_both_be_opened(tmp_path: Path, split: tuple[int, ...]) -> None:
    """N = 5, s = 4, one colludes: however the server divides the four honest helpers."""
    federation = Federation(tmp_path, 5, min_survivors=4)
    begin(federation, 0)
    told = {0: 1, 1: 1}  # the colluding site tells its shares of both
    for site, number in enumerate(split):
        if number == 0:
            told[0] += len(federation.reveal(site, 0, range(5))) == 5
    channels = federation.channels()
    for site, number in enumerate(split):
        if number == 1:
            told[1] += len(federation.members[site].prepare(1, channels).shares) == 4
        else:
            with pytest.raises(RoundOpened):
                federation.members[site].prepare(1, channels)
    assert sum(count >= 4 for count in told.values()) <= 1


@twin(
    "a report is masked for another try than was begun",
    "dppm_model.securesum.masking:Masking._check_try",
    nothing,
)
def test_every_try_has_other_masks_and_the_same_report(federation: Federation) -> None:
    site = federation.members[0]
    first, _ = site.begun(0).mask(SUM, TALLIES)
    begin(federation, 1)
    second, _ = site.begun(1).mask(AGAIN, TALLIES)
    difference = SUM.ring.unpack(first) - SUM.ring.unpack(second)
    assert len(np.unique(SUM.ring.reduce(difference))) > 30  # of 44
    with pytest.raises(StaleRound):
        site.begun(0).mask(SUM, TALLIES)
    with pytest.raises(StaleRound, match="not of try 0"):
        site.begun(1).mask(SUM, TALLIES)


@twin(
    "a helper is debited for a sum without its report",
    "dppm_model.securesum.member:Member.admit",
    lambda old: lambda self, number, materials, **_: old(self, number, materials, helps=True),
)
def test_a_helper_that_was_left_out_helps_and_reports_nothing(tmp_path: Path) -> None:
    federation = Federation(tmp_path, 5, min_survivors=4)
    federation.prepare(0, range(5))
    materials = {i: federation.members[i].prepare(0, federation.channels()) for i in range(4)}
    for i in range(4):
        federation.admit(0, materials, i)
    spare = federation.members[4]
    with pytest.raises(StaleRound, match="does not list this site"):  # it would be debited
        spare.admit(0, addressed(materials, 4))
    spare.admit(0, addressed(materials, 4), helps=True)
    with pytest.raises(StaleRound, match="does not list this site"):
        spare.admit(0, addressed(materials, 4))
    opening = Opening(federation.group, SUM, materials)
    for i in range(4):
        report, mask = federation.members[i].begun(0).mask(SUM, TALLIES)
        opening.add(i, report, digest_of(report), mask)
    for i in (0, 1, 2, 4):
        opening.add_shares(i, federation.reveal(i, 0, range(4)))
    np.testing.assert_array_equal(opening.open(), 4 * TALLIES)


@twin("keys of low order pass", "dppm_model.securesum.keys:usable", lambda _: lambda public: True)
def test_keys_of_low_order_are_of_no_use() -> None:
    order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
    for key in (bytes(32), bytes([1]) + bytes(31), bytes.fromhex(order_8), bytes(31), b""):
        assert not usable(key)
    assert usable(bytes([9]) + bytes(31))


def _opened_without_a_look(old: Any) -> Any:
    """A share is taken as it is: whatever its length, in or out of the field, dealt or not."""
    from dppm_model.securesum.keys import unseal

    def receive(self: Any, peer: int, material: Any, agreed: bytes) -> Any:
        key = self._key(agreed, peer, self.index)
        return unseal(key, material.shares[self.index], material.published, peer)

    return receive


@twin(
    "a malformed share is stored",
    "dppm_model.securesum.dealing:Dealing.receive",
    _opened_without_a_look,
    only="[1]",
)
@pytest.mark.parametrize(
    "content", [b"x", bytes(131), bytes(133), b"\xff" * 132, b"\1" * 132], ids=len
)
def test_a_malformed_share_is_a_complaint_and_not_stored(tmp_path: Path, content: bytes) -> None:
    """Of both dealers that sent such shares; without them the next try begins."""
    federation = Federation(tmp_path, 5, min_survivors=3)
    materials = addressed(federation.prepare(0, range(5)), 0)
    site = federation.members[0]
    for liar in (2, 3):
        dealing = federation.members[liar]._dealing(0)
        agreed = federation.members[liar]._memory.agreed[0]
        sealed = seal(dealing._key(agreed, liar, 0), content, materials[liar].published)
        dealt = {0: digests(content)} if content[:1] == b"\xff" else materials[liar].digests
        materials[liar] = replace(materials[liar], shares={0: sealed}, digests=dealt)
    before = (tmp_path / "0.json").read_bytes()
    with pytest.raises(ForgedShare) as error:
        site.admit(0, materials)
    assert error.value.accused == (2, 3)
    assert (tmp_path / "0.json").read_bytes() == before
    with pytest.raises(StaleRound):
        site.begun(0)


def _checks_tell(old: Any) -> Any:
    def masked(self: Any, group: Any, tallies: np.ndarray, mask: np.ndarray) -> Any:
        vector, said = old(self, group, tallies, mask)
        told = np.full(masks.CHECKS, tallies.sum(), self.ring.dtype)
        return vector, self.total([said, self._packed(told)])

    return masked


@twin("check numbers depend on the report", "dppm_model.securesum.masks:Sum.masked", _checks_tell)
@pytest.mark.parametrize("bits", [1, 2])
def test_check_numbers_of_masks_say_nothing_of_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bits: int
) -> None:
    """Every mask of a tiny ring: given its check numbers, the masked report has one law for all.

    So whoever knows the check numbers of all masks knows nothing of what is under them.
    """
    monkeypatch.setattr(masks, "CHECKS", 1)
    group = Federation(tmp_path, 3).group
    sum_ = Sum(0, bits, 2)
    laws = []
    for report in product(range(1 << bits), repeat=2):
        law: dict[tuple[bytes, bytes], int] = {}
        for mask in product(range(1 << bits), repeat=3):
            masked, said = sum_.masked(group, np.array(report), np.array(mask, sum_.ring.dtype))
            seen = (said, sum_.ring.pack(masked))
            assert sum_.residue(group, masked) == said
            law[seen] = law.get(seen, 0) + 1
        laws.append(law)
    assert all(law == laws[0] for law in laws)
    assert len(laws[0]) == 1 << 3 * bits  # every masked report, once


# ------------------------------------------------------------------------------------- proofs


def opened(
    federation: Federation, sum_: Sum, *, reporters: range = range(5), lie: Callable[[int], bytes]
) -> Opening:
    """Round 0 in one try, opened: ``lie`` says what is wrong of each site's self-mask."""
    materials = {
        i: federation.members[i].prepare(sum_.number, federation.channels()) for i in range(5)
    }
    opening = Opening(federation.group, sum_, materials)
    for i in reporters:
        report, mask = federation.members[i].begun(sum_.number).mask(sum_, TALLIES)
        values = {i: lie(i) or mask.values[i]}
        said = checked(federation.group, sum_.number, opening.published, values)
        mask = Checks(values, identities(5)[i].sign(said))
        opening.add(i, report, digest_of(report), mask)
    for i in reporters if opening.missing else ():
        opening.add_pairs(i, federation.checks(i, sum_, opening.missing))
    for i in reporters:
        opening.add_shares(i, federation.reveal(i, sum_.number, reporters))
    return opening


@pytest.fixture
def guilty(federation: Federation) -> Guilty:
    """Site 3 said something else of its self-mask than it has dealt."""
    opening = opened(federation, SUM, lie=lambda i: bytes([i == 3] * 32) if i == 3 else b"")
    (proof,) = opening.proofs()
    assert proof.accused == 3
    return opening, proof


@twin(
    "for one guilty site the keys of all masks are revealed",
    "dppm_model.securesum.masking:Masking.pair_keys",
    lambda old: (
        lambda self, sum_, proofs: {
            i: self._pair_key(sum_, i) for i in self.published.keys() - {self.index}
        }
    ),
)
def test_a_guilty_site_is_taken_out_of_the_sum(federation: Federation, guilty: Guilty) -> None:
    opening, proof = guilty
    assert not opening.fits()
    report = federation.members[3].begun(0).mask(SUM, TALLIES)[0]
    opening.remove([3], lambda _: report)
    for i in (0, 1, 2, 4):
        keys = federation.member(i).begun(0).pair_keys(SUM, [proof])
        assert keys.keys() == {3}
        opening.add_keys(i, keys)
    np.testing.assert_array_equal(opening.open(), 4 * TALLIES)


def changes(federation: Federation, proof: Proof) -> dict[str, Proof]:
    """Proofs that a server may forge to have masks told."""
    honest = {h: federation.member(h)._dealing(0).shares([h])[0] for h in range(4)}
    mine = federation.members[1].prepare(0, federation.channels()).digests
    dealt = federation.member(1)._dealing(0).shares(range(4))
    own, keys = ({h: half[part] for h, half in enumerate(dealt)} for part in HALVES)
    said = federation.members[1].begun(0).mask(SUM, TALLIES)[1]
    nothing = Checks({}, bytes(64))
    made_up, shares = (
        dict.fromkeys(range(5), digests(bytes(132))),
        dict.fromkeys(range(4), bytes(66)),
    )
    return {
        "absent": Proof(1, 1, SELF, {}, {}, nothing),
        "of another": replace(proof, accused=1),
        "of another dealer": replace(proof, dealer=1),
        "the other secret": replace(proof, which=KEY),
        "no secret": replace(proof, which=2),
        "fewer shares": replace(proof, shares=dict(list(proof.shares.items())[:3])),
        "more shares": replace(proof, shares={**proof.shares, 77: bytes(66)}),
        "changed shares": replace(proof, shares={h: bytes(66) for h in proof.shares}),
        "others' shares": replace(proof, shares={h: s[:66] for h, s in honest.items()}),
        "changed digests": replace(
            proof,
            digests={h: digests(bytes(132)) for h in range(5)},
            shares={h: bytes(66) for h in range(4)},
        ),
        "unsigned": replace(proof, said=replace(proof.said, signature=bytes(64))),
        "other words": replace(proof, said=replace(proof.said, values={3: bytes(32)})),
        "made up of its mask key": Proof(1, 1, KEY, made_up, shares, nothing),
        "made up of its self-mask": Proof(1, 1, SELF, made_up, shares, said),
        "an honest site's own": Proof(1, 1, SELF, mine, own, said),
        "an honest site's own, unsigned": Proof(
            1, 1, SELF, mine, own, Checks({1: bytes(32)}, said.signature)
        ),
        "an honest site's, of another's words": Proof(1, 1, SELF, mine, own, proof.said),
        "an honest site's mask key": Proof(1, 1, KEY, mine, keys, said),
    }


def _bound_to_any_digests(old: Any) -> Any:
    def holds(self: Any, group: Any, sum_: Any, published: Any) -> Any:
        from dppm_model.securesum.round_keys import commitment

        if self.digests.keys() != set(range(group.size)):
            return False
        bound = commitment(group, sum_.number, self.dealer, self.digests)
        mask_key = published[self.dealer][:32]
        return old(self, group, sum_, {**published, self.dealer: mask_key + bound})

    return holds


@twin(
    "keys of masks are revealed without proof",
    "dppm_model.securesum.proof:Proof.holds",
    lambda _: lambda *args: True,
)
@twin(
    "a proof may bring digests that its dealer is not bound to",
    "dppm_model.securesum.proof:Proof.holds",
    _bound_to_any_digests,
)
def test_no_proof_makes_an_honest_site_guilty(federation: Federation, guilty: Guilty) -> None:
    site = federation.members[0]
    for name, lie in changes(federation, guilty[1]).items():
        with pytest.raises(NotGuilty):
            site.begun(0).pair_keys(SUM, [lie])
            raise AssertionError(name)
        with pytest.raises(NotGuilty):  # nor beside a good one
            site.begun(0).pair_keys(SUM, [guilty[1], lie])
    with pytest.raises(UnknownSite):
        federation.members[3].begun(0).pair_keys(SUM, [guilty[1]])  # of itself
    assert site.begun(0).pair_keys(SUM, [guilty[1]]).keys() == {3}


def test_a_proof_is_of_one_try_only(federation: Federation, guilty: Guilty, tmp_path: Path) -> None:
    proof = guilty[1]
    begin(federation, TRIES)  # the next round
    site = federation.members[0]
    with pytest.raises(NotGuilty):
        site.begun(TRIES).pair_keys(replace(SUM, number=TRIES), [proof])
    with pytest.raises(StaleRound):
        site.begun(0)
    other = Federation(tmp_path / "other", 5, min_survivors=4)
    begin(other, 1)
    with pytest.raises(NotGuilty):
        other.members[0].begun(1).pair_keys(AGAIN, [proof])


@twin(
    "check numbers for other participants count as proof",
    "dppm_model.securesum.round_keys:checked",
    lambda old: lambda group, number, _, values: old(group, number, {}, values),
)
def test_words_under_another_list_of_participants_prove_nothing(tmp_path: Path) -> None:
    """Drop-out 4 shows site 1 another mask key than it shows site 0: site 1 says what is true."""
    federation = Federation(tmp_path, 5, min_survivors=3)
    materials = federation.prepare(0, range(5))
    twin = federation.member(4)
    twin._memory.rounds[0].seed = bytes([0x77]) * 32
    other = twin._dealing(0).material(
        identities(5)[4], {i: twin._memory.agreed[i] for i in range(4)}
    )
    for i in (0, 2, 3):
        federation.admit(0, materials, i)
    federation.admit(0, materials | {4: other}, 1)
    said = federation.checks(1, SUM, [4])
    shares = {h: federation.members[4]._dealing(0).shares([h])[0][66:] for h in range(3)}
    proof = Proof(1, 4, KEY, materials[4].digests, shares, said)
    secret = federation.members[4]._dealing(0).secrets[0]
    true = SUM.ring.zeros()
    key = masks.pair_key(federation.group, SUM, (1, 4), agree(secret, materials[1].mask_key))
    add_pair_mask(SUM, true, (1, 4), key)
    assert SUM.residue(federation.group, true) != said.values[4]  # it looks guilty
    with pytest.raises(NotGuilty):
        federation.members[0].begun(0).pair_keys(SUM, [proof])


def test_what_is_said_of_masks_is_of_participants_only(federation: Federation) -> None:
    masking = federation.members[0].begun(0)
    for peers in ([0], [9], [1, 9]):
        with pytest.raises(UnknownSite):
            masking.checks(SUM, peers)
    said = [federation.checks(i, SUM, [1 - i]).values[1 - i] for i in (0, 1)]
    assert not any(SUM.total(said)) and any(said[0])


@twin(
    "a share may be a number beyond the field",
    "dppm_model.securesum.shamir:is_share",
    lambda _: lambda share: True,
)
def test_shares_are_numbers_of_the_field() -> None:
    assert shamir.is_share(bytes(66)) and shamir.is_share((shamir.PRIME - 1).to_bytes(66))
    for share in (bytes(65), bytes(67), b"", shamir.PRIME.to_bytes(66), b"\xff" * 66):
        assert not shamir.is_share(share)
    assert Ring(1, 1).packed_bytes == 1
