"""What a site publishes for one round: its keys, and shares of its secrets for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Material:
    """What a site publishes for one round.

    Attributes
    ----------
    mask_key
        Public X25519 key of its pairwise masks.
    commitment
        Binds it to its self-mask.
    shares
        For each other site, sealed: that site's shares of self-mask and mask key.
    """

    mask_key: bytes
    commitment: bytes
    shares: Mapping[int, bytes]

    @property
    def bound(self) -> bytes:
        """What is authenticated together with every share."""
        return self.mask_key + self.commitment
