"""The server's side of one sum: add up masked reports as they arrive, then open the sum alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from dppm_model.errors import WrongReport, WrongSum
from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import agree, commitment, public_of
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask
from dppm_model.securesum.material import Material
from dppm_model.securesum.ring import Vector


def digest_of(report: bytes) -> bytes:
    """SHA-256 of a masked report, which travels beside it."""
    return hashlib.sha256(report).digest()


class Opening:
    """One sum. Memory grows with the dimension, not with the number of reports.

    Parameters
    ----------
    participants
        Materials of the sites that take part (``shares`` are not needed).
    total, reported
        What an earlier process had added up.
    """

    def __init__(
        self,
        group: Group,
        sum_: Sum,
        participants: Mapping[int, Material],
        total: Vector | None = None,
        reported: Iterable[int] = (),
    ) -> None:
        self.group, self.sum, self.participants = group, sum_, participants
        self.total: Vector = sum_.ring.zeros() if total is None else total
        self.reported = set(reported)
        self._shares: dict[int, Mapping[int, bytes]] = {}
        self.suspects: set[int] = set()
        self._known_weights: dict[tuple[int, ...], dict[int, int]] = {}

    def add(self, index: int, report: bytes, digest: bytes) -> None:
        """Add the masked report of one site.

        Raises
        ------
        WrongReport
            If it was changed on its way, has another size, or its site has reported already.
        """
        if index not in self.participants or index in self.reported:
            raise WrongReport(
                f"Site {index} takes no part in round {self.sum.number}, or has reported.",
                "One report a site and round.",
            )
        if digest != digest_of(report) or len(report) != self.sum.ring.packed_bytes:
            raise WrongReport(
                f"The report of site {index} is not as it was sent.", "Ask for it again."
            )
        self.total += self.sum.ring.unpack(report)
        self.reported.add(index)

    def add_shares(self, index: int, shares: Mapping[int, bytes]) -> None:
        """Take in the shares that one site tells for ``reported``.

        Raises
        ------
        WrongReport
            If they are not one of the right size for each participant.
        """
        if (
            index not in self.participants
            or shares.keys() != self.participants.keys()
            or any(len(s) != shamir.SHARE_BYTES for s in shares.values())
        ):
            raise WrongReport(
                f"The shares of site {index} are not one for each participant.", "Ask again."
            )
        self._shares[index] = shares

    @property
    def helpers(self) -> int:
        """How many sites have told their shares."""
        return len(self._shares)

    def open(self) -> Vector:
        """Take off all masks that did not cancel and return the sum of the survivors' vectors.

        `suspects` then names sites whose shares were wrong and were left out.

        Raises
        ------
        WrongSum
            If too few good shares are there, or masks and check numbers do not fit.
        """
        vector = self.total.copy()
        for index, material in self.participants.items():
            if index in self.reported:
                secret = self._secret(index, self._is_self_mask(index, material))
                add_self_mask(self.group, self.sum, vector, index, secret, subtract=True)
                continue
            secret = self._secret(index, lambda s, m=material: public_of(s) == m.mask_key)  # type: ignore[misc]
            for peer in self.reported:
                shared = agree(secret, self.participants[peer].mask_key)
                pair = (peer, index)
                add_pair_mask(self.group, self.sum, vector, pair, shared, subtract=True)
        return self.sum.without_checks(self.group, vector)

    def _is_self_mask(self, index: int, material: Material) -> Callable[[bytes], bool]:
        def check(secret: bytes) -> bool:
            expected = commitment(self.group, self.sum.number, index, secret)
            return expected == material.commitment

        return check

    def _secret(self, index: int, fits: Callable[[bytes], bool]) -> bytes:
        """Reconstruct a secret of site ``index`` and verify it; leave out a holder who lies."""
        holders = sorted(self._shares.keys() - self.suspects)
        for left_out in (None, *holders):
            chosen = [h for h in holders if h != left_out][: self.group.min_survivors]
            if len(chosen) < self.group.min_survivors:
                break
            shares = {h + 1: self._shares[h][index] for h in chosen}
            secret = shamir.combine(shares, self._weights(tuple(shares)))
            if secret is not None and fits(secret):
                if left_out is not None:
                    self.suspects.add(left_out)
                return secret
        raise WrongSum(
            f"The shares of site {index}'s secret in round {self.sum.number} do not fit together.",
            f"They came from sites {', '.join(map(str, holders))}; one of them, or site {index}, "
            "sent something wrong.",
        )

    def _weights(self, holders: tuple[int, ...]) -> dict[int, int]:
        if holders not in self._known_weights:
            self._known_weights[holders] = shamir.weights(holders)
        return self._known_weights[holders]
