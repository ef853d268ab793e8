"""Channels, materials and shares as flat fields, and back: all that the secure sum ever sends.

Field values are bytes, or lists of bytes or of whole numbers, which Flower's records hold as they
are. Reading checks types and sizes, so that nothing else has to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dppm_model.errors import WrongReport
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.proof import Proof
from dppm_model.securesum.round_keys import (
    CHECK_BYTES,
    DIGESTS_BYTES,
    Checks,
    RoundKeys,
    digest_of,
)
from dppm_model.securesum.shamir import SHARE_BYTES

Fields = dict[str, Any]


def write_member(identity: bytes, channel: Channel, proof: bytes) -> Fields:
    """A site that joins."""
    return {
        "identity": identity,
        "channel": channel.public,
        "signature": channel.signature,
        "proof": proof,
    }


def read_member(fields: Mapping[str, Any]) -> tuple[bytes, Channel, bytes]:
    """Undo `write_member`."""
    channel = Channel(_bytes(fields, "channel", 32), _bytes(fields, "signature", 64))
    return _bytes(fields, "identity", 32), channel, _bytes(fields, "proof", 64)


def read_nonce(fields: Mapping[str, Any]) -> bytes:
    """What a site that joins has to sign."""
    return _bytes(fields, "nonce", 32)


def write_channels(number: int, channels: Mapping[int, Channel]) -> Fields:
    """Channels of all sites that have joined, for the preparation of a round."""
    return {
        "round": number,
        "sites": list(channels),
        "channels": [c.public for c in channels.values()],
        "signatures": [c.signature for c in channels.values()],
    }


def read_channels(fields: Mapping[str, Any]) -> tuple[int, dict[int, Channel]]:
    """Undo `write_channels`."""
    sites, keys = _numbers(fields, "sites"), _bytes_list(fields, "channels", 32)
    signatures = _bytes_list(fields, "signatures", 64)
    _same_length(sites, keys, signatures)
    channels = {i: Channel(*pair) for i, *pair in zip(sites, keys, signatures, strict=True)}
    return read_number(fields, "round"), channels


def write_survivors(number: int, survivors: Mapping[int, bytes]) -> Fields:
    """Whose reports are in the sum of a round, with their signatures of its participants."""
    sites = sorted(survivors)
    return {"round": number, "sites": sites, "signatures": [survivors[i] for i in sites]}


def read_survivors(fields: Mapping[str, Any]) -> tuple[int, dict[int, bytes]]:
    """Undo `write_survivors`."""
    return read_number(fields, "round"), _by_site(fields, "signatures", 64)


def write_material(material: RoundKeys) -> Fields:
    """A site's own material, on its way to the server."""
    return {
        "mask_key": material.mask_key,
        "commitment": material.commitment,
        "signature": material.signature,
        "digests": [material.digests[i] for i in sorted(material.digests)],
        "sites": list(material.shares),
        "shares": list(material.shares.values()),
    }


def read_material(fields: Mapping[str, Any]) -> RoundKeys:
    """Undo `write_material`."""
    return RoundKeys(
        _bytes(fields, "mask_key", 32),
        _bytes(fields, "commitment", 32),
        _bytes(fields, "signature", 64),
        dict(enumerate(_bytes_list(fields, "digests", DIGESTS_BYTES))),
        _by_site(fields, "shares"),
    )


def write_materials(materials: Mapping[int, RoundKeys], receiver: int) -> Fields:
    """Materials of all participants, on their way to one site: only what is for it."""
    return {
        "sites": list(materials),
        "mask_keys": [m.mask_key for m in materials.values()],
        "commitments": [m.commitment for m in materials.values()],
        "digests": [m.digests[receiver] for m in materials.values()],
        "shares": [m.shares.get(receiver, b"") for m in materials.values()],
    }


def read_materials(fields: Mapping[str, Any], receiver: int) -> dict[int, RoundKeys]:
    """Undo `write_materials`."""
    sites, sizes = _numbers(fields, "sites"), {"mask_keys": 32, "commitments": 32}
    sizes |= {"digests": DIGESTS_BYTES}
    columns = [_bytes_list(fields, name, size) for name, size in sizes.items()]
    shares = _bytes_list(fields, "shares")
    _same_length(sites, *columns, shares)
    rows = zip(sites, *columns, shares, strict=True)
    return {
        i: RoundKeys(key, bound, b"", {receiver: digests}, {receiver: share})
        for i, key, bound, digests, share in rows
    }


def write_report(site: int, masked: bytes, signature: bytes, mask: Checks) -> Fields:
    """A masked report with its digest, and what its site has signed."""
    return {
        "masked": masked,
        "digest": digest_of(masked),
        "signature": signature,
        "checks": mask.values[site],
        "checks_signature": mask.signature,
    }


def read_report(fields: Mapping[str, Any], site: int) -> tuple[bytes, bytes, bytes, Checks]:
    """Undo `write_report`: the report, its digest, and both signatures."""
    masked = fields.get("masked")
    if not isinstance(masked, bytes):
        raise _wrong("masked")
    mask = Checks(
        {site: _bytes(fields, "checks", CHECK_BYTES)}, _bytes(fields, "checks_signature", 64)
    )
    return masked, _bytes(fields, "digest", 32), _bytes(fields, "signature", 64), mask


def write_sites(sites: Iterable[int]) -> Fields:
    """The peers that a site is asked of."""
    return {"sites": sorted(sites)}


def read_sites(fields: Mapping[str, Any]) -> list[int]:
    """Undo `write_sites`."""
    return _numbers(fields, "sites")


def read_accused(fields: Mapping[str, Any]) -> list[int]:
    """Whose keys or shares a refusal is of; nobody's where it does not say."""
    return _numbers(fields, "accused") if "accused" in fields else []


def write_checks(checks: Checks) -> Fields:
    """What a site says of its masks."""
    sites, values = list(checks.values), list(checks.values.values())
    return {"sites": sites, "values": values, "signature": checks.signature}


def read_checks(fields: Mapping[str, Any]) -> Checks:
    """Undo `write_checks`."""
    return Checks(_by_site(fields, "values", CHECK_BYTES), _bytes(fields, "signature", 64))


def write_proof(proof: Proof) -> Fields:
    """A proof of guilt."""
    return {
        "accused": proof.accused,
        "dealer": proof.dealer,
        "which": proof.which,
        "digests": [proof.digests[i] for i in sorted(proof.digests)],
        "holders": list(proof.shares),
        "shares": list(proof.shares.values()),
        **write_checks(proof.said),
    }


def read_proof(fields: Mapping[str, Any]) -> Proof:
    """Undo `write_proof`."""
    return Proof(
        read_number(fields, "accused"),
        read_number(fields, "dealer"),
        read_number(fields, "which"),
        dict(enumerate(_bytes_list(fields, "digests", DIGESTS_BYTES))),
        _by_site(fields, "shares", SHARE_BYTES, sites="holders"),
        read_checks(fields),
    )


def write_keys(keys: Mapping[int, bytes]) -> Fields:
    """The keys of a site's masks with guilty peers."""
    return {"sites": list(keys), "keys": list(keys.values())}


def read_keys(fields: Mapping[str, Any]) -> dict[int, bytes]:
    """Undo `write_keys`."""
    return _by_site(fields, "keys", 32)


def write_shares(shares: Mapping[int, bytes]) -> Fields:
    """The shares that a site tells to open a sum."""
    return {"sites": list(shares), "shares": list(shares.values())}


def read_shares(fields: Mapping[str, Any]) -> dict[int, bytes]:
    """Undo `write_shares`."""
    return _by_site(fields, "shares")


def _wrong(name: str) -> WrongReport:
    return WrongReport(f"Field {name} is missing or malformed.", "Use the same version everywhere.")


def _bytes(fields: Mapping[str, Any], name: str, size: int) -> bytes:
    value = fields.get(name)
    if not isinstance(value, bytes) or len(value) != size:
        raise _wrong(name)
    return value


def _bytes_list(fields: Mapping[str, Any], name: str, size: int | None = None) -> list[bytes]:
    values = fields.get(name)
    if not isinstance(values, list) or not all(
        isinstance(v, bytes) and size in (None, len(v)) for v in values
    ):
        raise _wrong(name)
    return values


def read_number(fields: Mapping[str, Any], name: str) -> int:
    """Read a whole number below 2^32."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise _wrong(name)
    return value


def _numbers(fields: Mapping[str, Any], name: str) -> list[int]:
    values = fields.get(name)
    if not isinstance(values, list) or len(set(values)) < len(values):
        raise _wrong(name)
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**32 for v in values):
        raise _wrong(name)
    return values


def _by_site(
    fields: Mapping[str, Any], name: str, size: int | None = None, *, sites: str = "sites"
) -> dict[int, bytes]:
    """One value of each site, whose numbers are in another field."""
    keys, values = _numbers(fields, sites), _bytes_list(fields, name, size)
    _same_length(keys, values)
    return dict(zip(keys, values, strict=True))


def _same_length(*columns: list[Any]) -> None:
    if len({len(c) for c in columns}) > 1:
        raise _wrong("sites")
