"""The server's side of one sum: add up masked reports as they arrive, then open only the sum.

A site's faults are found while the sum can still be saved: wrong masks before anything is opened
(`Opening.fits`, `Opening.blamed`), wrong shares on arrival. Faults that only the opened secrets
show become proofs, with which the site's report is taken out (`Opening.proofs`, `Opening.remove`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from dppm_model.errors import WrongReport, WrongSum
from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import agree, public_of
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask, pair_key
from dppm_model.securesum.proof import Proof, residue
from dppm_model.securesum.ring import Vector
from dppm_model.securesum.round_keys import KEY, SELF, Checks, RoundKeys, digest_of, is_share

_NOTHING = Checks({}, bytes(64))
_NO_MASK = bytes(32)


class Opening:
    """One sum. Memory grows with the dimension, not with the number of reports.

    Parameters
    ----------
    participants
        Materials of the sites that take part (``shares`` are not needed).
    total, masks
        The sum of an earlier process, and the check numbers of the self-masks in it.

    Attributes
    ----------
    masks
        The check numbers of each reporting site's self-mask.
    pairs
        The check numbers of its masks with drop-outs.
    removed
        Sites that are proven guilty; their reports are no longer in the sum.
    liars
        Holders whose shares are not those that they were dealt.
    """

    def __init__(
        self,
        group: Group,
        sum_: Sum,
        participants: Mapping[int, RoundKeys],
        total: Vector | None = None,
        masks: Mapping[int, Checks] | None = None,
        pairs: Mapping[int, Checks] | None = None,
    ) -> None:
        self.group, self.sum, self.participants = group, sum_, participants
        self.total: Vector = sum_.ring.zeros() if total is None else total
        self.masks, self.pairs = dict(masks or {}), dict(pairs or {})
        self.removed: set[int] = set()
        self.liars: set[int] = set()
        self._shares: dict[int, dict[int, bytes]] = {i: {} for i in participants}
        self._keys: dict[tuple[int, int], bytes] = {}  # (site, guilty peer) -> key of their mask
        self._known_weights: dict[tuple[int, ...], dict[int, int]] = {}

    @cached_property
    def published(self) -> dict[int, bytes]:
        """The signed keys of each participant."""
        return {i: m.published for i, m in self.participants.items()}

    @property
    def reported(self) -> set[int]:
        """Sites whose reports are in the sum."""
        return self.masks.keys() - self.removed

    @property
    def missing(self) -> set[int]:
        """Participants that have not reported."""
        return self.participants.keys() - self.masks.keys()

    def add(self, index: int, report: bytes, digest: bytes, mask: Checks) -> None:
        """Add the masked report of one site, with the check numbers of its self-mask.

        Raises WrongReport if it was changed in transit, has the wrong size, is not signed, or its
        site has reported already.
        """
        if index not in self.participants or index in self.masks:
            raise WrongReport(
                f"Site {index} takes no part in try {self.sum.number}, or has reported.",
                "A site reports once in a try.",
            )
        try:
            vector = self.sum.ring.unpack(report)
        except ValueError as error:
            raise WrongReport(f"The report of site {index} has {error}.", "Ask again.") from None
        if digest_of(report) != digest:
            raise WrongReport(f"The report of site {index} was changed in transit.", "Ask again.")
        self._check_signed(index, mask, {index})
        self.total += vector
        self.masks[index] = mask

    def add_pairs(self, index: int, said: Checks) -> None:
        """Take a site's check numbers of its masks with the missing sites.

        Raises WrongReport if they are not for exactly these, or not signed.
        """
        self._check_signed(index, said, self.missing)
        self.pairs[index] = said

    def fits(self) -> bool:
        """Say whether the masked sum has the claimed masks, without opening anything."""
        said = [self.masks[i].values[i] for i in self.masks]
        said += [value for checks in self.pairs.values() for value in checks.values.values()]
        return self.sum.residue(self.group, self.total) == self.sum.total(said)

    def blamed(
        self, rows: Mapping[int, Checks], report: Callable[[int], bytes]
    ) -> tuple[set[int], set[tuple[int, int]]]:
        """Find the sites that masked wrongly, from all check numbers of pairwise masks.

        ``rows`` hold, for each site that has reported, its checks about all others that have;
        ``report`` gives a site's masked report. Returns the sites whose reports contradict their
        own check numbers, and the pairs of sites that contradict each other about their common
        mask. Raises WrongReport if a row is not for exactly these, or not signed.
        """
        wrong, pairs = set(), set()
        for i, row in rows.items():
            self._check_signed(i, row, self.masks.keys() - {i})
            others = self.pairs.get(i, _NOTHING).values.values()
            said = self.sum.total([self.masks[i].values[i], *row.values.values(), *others])
            if self.sum.residue(self.group, self.sum.ring.unpack(report(i))) != said:
                wrong.add(i)
            for j in rows:
                both = (row.values.get(j), rows[j].values.get(i))
                if j < i and None not in both and self.sum.total(both) != _NO_MASK:  # type: ignore[arg-type]
                    pairs.add((j, i))
        return wrong, pairs

    def add_shares(self, index: int, shares: Mapping[int, bytes]) -> None:
        """Take the shares of site ``index``, one for each participant.

        Shares that were never dealt are left out, and `liars` gets their holder.

        Raises WrongReport if they are not one for each participant.
        """
        if shares.keys() != self.participants.keys():
            raise WrongReport(
                f"Site {index} did not send one share for each participant.", "Ask again."
            )
        for dealer, share in shares.items():
            which = SELF if dealer in self.masks else KEY
            if is_share(self.participants[dealer].digests[index], which, share):
                self._shares[dealer][index] = share
            else:
                self.liars.add(index)

    @property
    def helpers(self) -> int:
        """The least number of good shares of any secret."""
        return min(map(len, self._shares.values()))

    def open(self) -> Vector:
        """Remove all masks that did not cancel, and return the sum of the survivors' vectors.

        Raises WrongSum if there are too few good shares, or masks and check numbers do not fit:
        then see `proofs`.
        """
        vector = self.total.copy()
        for index, material in self.participants.items():
            if index in self.removed:
                for peer in self.reported:
                    key = self._keys[peer, index]
                    add_pair_mask(self.sum, vector, (peer, index), key, subtract=True)
                continue
            secret = self._secret(index)
            if secret is None:
                raise self._wrong_secret(index)
            if index in self.masks:
                add_self_mask(self.group, self.sum, vector, index, secret, subtract=True)
                continue
            if public_of(secret) != material.mask_key:
                raise self._wrong_secret(index)
            for peer in self.reported:
                shared = agree(secret, self.participants[peer].mask_key)
                key = pair_key(self.group, self.sum, (peer, index), shared)
                add_pair_mask(self.sum, vector, (peer, index), key, subtract=True)
        return self.sum.without_checks(self.group, vector)

    def proofs(self) -> list[Proof]:
        """Prove the guilt that the opened secrets show, at most once for each site."""
        found: dict[int, Proof] = {}
        for dealer, material in self.participants.items():
            which = SELF if dealer in self.masks else KEY
            shares = {h: self._shares[dealer][h] for h in self._holders(dealer)}

            def proof(accused: int, said: Checks) -> None:
                found.setdefault(
                    accused,
                    Proof(accused, dealer, which, material.digests, shares, said),  # noqa: B023
                )

            secret = self._secret(dealer)
            if secret is None or (which == KEY and public_of(secret) != material.mask_key):
                proof(dealer, _NOTHING)
                continue
            said = {dealer: self.masks[dealer]} if which == SELF else self.pairs
            for accused, checks in said.items():
                true = residue(self.group, self.sum, accused, dealer, secret, self.published)
                if checks.values[dealer] != true:
                    proof(accused, checks)
        return list(found.values())

    def remove(self, guilty: Iterable[int], report: Callable[[int], bytes]) -> None:
        """Take guilty sites, and the reports of those that have reported, out of the sum."""
        for index in guilty:
            if index in self.masks:
                self.total = self.total - self.sum.ring.unpack(report(index))
            self.removed.add(index)

    def add_keys(self, index: int, keys: Mapping[int, bytes]) -> None:
        """Take the keys of a site's masks with those that were removed.

        Raises WrongReport if they are not for exactly these.
        """
        if keys.keys() != self.removed:
            raise WrongReport(f"Site {index} sent other keys than it was asked for.", "Ask again.")
        self._keys |= {(index, peer): key for peer, key in keys.items()}

    def _check_signed(self, index: int, said: Checks, about: set[int]) -> None:
        if said.values.keys() != about or not said.is_signed(
            self.group, self.sum.number, index, self.published
        ):
            raise WrongReport(
                f"Site {index} did not sign its check numbers.",
                "Use one version everywhere.",
            )

    def _holders(self, index: int) -> tuple[int, ...]:
        return tuple(sorted(self._shares[index])[: self.group.min_survivors])

    def _secret(self, index: int) -> bytes | None:
        """Reconstruct a secret of site ``index``; None if its shares are inconsistent."""
        holders = tuple(h + 1 for h in self._holders(index))
        if len(holders) < self.group.min_survivors:
            raise self._wrong_secret(index)
        if holders not in self._known_weights:
            self._known_weights[holders] = shamir.weights(holders)
        shares = {h: self._shares[index][h - 1] for h in holders}
        return shamir.combine(shares, self._known_weights[holders])

    def _wrong_secret(self, index: int) -> WrongSum:
        return WrongSum(
            f"The shares of site {index}'s secret in try {self.sum.number} are inconsistent.",
            f"There are {len(self._shares[index])} good ones; site {index} dealt something wrong, "
            "or too few have helped.",
        )
