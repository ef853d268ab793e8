"""The server's half of the secure sum's messages: the reverse of `dppm_model.securesum.wire`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dppm_model.aggregation import Fields
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.proof import Proof
from dppm_model.securesum.round_keys import CHECK_BYTES, DIGESTS_BYTES, Checks, RoundKeys
from dppm_model.securesum.wire import read_by_site, read_bytes, read_list, write_checks


def write_channels(number: int, channels: Mapping[int, Channel]) -> Fields:
    """Write the channels of all sites that have joined, for the preparation of a round."""
    return {
        "round": number,
        "sites": list(channels),
        "channels": [c.public for c in channels.values()],
        "signatures": [c.signature for c in channels.values()],
    }


def write_round_keys(round_keys: Mapping[int, RoundKeys], receiver: int) -> Fields:
    """Write the keys of all participants, and only those shares and digests that are for a site."""
    return {
        "sites": list(round_keys),
        "mask_keys": [m.mask_key for m in round_keys.values()],
        "commitments": [m.commitment for m in round_keys.values()],
        "digests": [m.digests[receiver] for m in round_keys.values()],
        "shares": [m.shares.get(receiver, b"") for m in round_keys.values()],
    }


def write_survivors(number: int, survivors: Mapping[int, bytes]) -> Fields:
    """Write the sites whose reports are in a sum, and their signatures of its participants."""
    sites = sorted(survivors)
    return {"round": number, "sites": sites, "signatures": [survivors[i] for i in sites]}


def write_proof(proof: Proof) -> Fields:
    """Write a proof of guilt."""
    return {
        "accused": proof.accused,
        "dealer": proof.dealer,
        "which": proof.which,
        "digests": [proof.digests[i] for i in sorted(proof.digests)],
        "holders": list(proof.shares),
        "shares": list(proof.shares.values()),
        **write_checks(proof.said),
    }


def read_member(fields: Mapping[str, Any]) -> tuple[bytes, Channel, bytes]:
    """Undo the sites' `write_member`."""
    channel = Channel(read_bytes(fields, "channel", 32), read_bytes(fields, "signature", 64))
    return read_bytes(fields, "identity", 32), channel, read_bytes(fields, "proof", 64)


def read_round_keys(fields: Mapping[str, Any]) -> RoundKeys:
    """Undo the sites' `write_material`."""
    return RoundKeys(
        read_bytes(fields, "mask_key", 32),
        read_bytes(fields, "commitment", 32),
        read_bytes(fields, "signature", 64),
        dict(enumerate(read_list(fields, "digests", DIGESTS_BYTES))),
        read_by_site(fields, "shares"),
    )


def read_report(fields: Mapping[str, Any], site: int) -> tuple[bytes, bytes, bytes, Checks]:
    """Undo the sites' `write_report`: the report, its digest, and both signatures."""
    own = {site: read_bytes(fields, "checks", CHECK_BYTES)}
    mask = Checks(own, read_bytes(fields, "checks_signature", 64))
    digest, signature = read_bytes(fields, "digest", 32), read_bytes(fields, "signature", 64)
    return read_bytes(fields, "masked"), digest, signature, mask
