"""A site's messages of the secure sum as flat fields; `server.securesum.wire` has the server's.

Values are bytes, or lists of bytes or of whole numbers, which Flower's records hold as they are.
Reading checks types and sizes, so that no other module has to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dppm_model.aggregation import Fields
from dppm_model.errors import WrongReport
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.proof import Proof
from dppm_model.securesum.round_keys import CHECK_BYTES, DIGESTS_BYTES, Checks, RoundKeys, digest_of
from dppm_model.securesum.shamir import SHARE_BYTES


def write_member(identity: bytes, channel: Channel, proof: bytes) -> Fields:
    """A site that joins."""
    return {
        "identity": identity,
        "channel": channel.public,
        "signature": channel.signature,
        "proof": proof,
    }


def read_channels(fields: Mapping[str, Any]) -> tuple[int, dict[int, Channel]]:
    """Undo `server.securesum.wire.write_channels`."""
    sites, keys = read_numbers(fields, "sites"), read_list(fields, "channels", 32)
    signatures = read_list(fields, "signatures", 64)
    _same_length(sites, keys, signatures)
    channels = {i: Channel(*pair) for i, *pair in zip(sites, keys, signatures, strict=True)}
    return read_number(fields, "round"), channels


def read_survivors(fields: Mapping[str, Any]) -> tuple[int, dict[int, bytes]]:
    """Undo `server.securesum.wire.write_survivors`."""
    return read_number(fields, "round"), read_by_site(fields, "signatures", 64)


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


def read_materials(fields: Mapping[str, Any], receiver: int) -> dict[int, RoundKeys]:
    """Undo `server.securesum.wire.write_round_keys`."""
    sites, sizes = read_numbers(fields, "sites"), {"mask_keys": 32, "commitments": 32}
    sizes |= {"digests": DIGESTS_BYTES}
    columns = [read_list(fields, name, size) for name, size in sizes.items()]
    shares = read_list(fields, "shares")
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


def write_checks(checks: Checks) -> Fields:
    """A site's check numbers of its masks."""
    sites, values = list(checks.values), list(checks.values.values())
    return {"sites": sites, "values": values, "signature": checks.signature}


def read_checks(fields: Mapping[str, Any]) -> Checks:
    """Undo `write_checks`."""
    return Checks(read_by_site(fields, "values", CHECK_BYTES), read_bytes(fields, "signature", 64))


def read_proof(fields: Mapping[str, Any]) -> Proof:
    """Undo `server.securesum.wire.write_proof`."""
    return Proof(
        read_number(fields, "accused"),
        read_number(fields, "dealer"),
        read_number(fields, "which"),
        dict(enumerate(read_list(fields, "digests", DIGESTS_BYTES))),
        read_by_site(fields, "shares", SHARE_BYTES, sites="holders"),
        read_checks(fields),
    )


def write_keys(keys: Mapping[int, bytes]) -> Fields:
    """The keys of a site's masks with guilty peers."""
    return {"sites": list(keys), "keys": list(keys.values())}


def write_shares(shares: Mapping[int, bytes]) -> Fields:
    """The shares that a site reveals to open a sum."""
    return {"sites": list(shares), "shares": list(shares.values())}


def _malformed(name: str) -> WrongReport:
    return WrongReport(f"Field {name} is missing or malformed.", "Use the same version everywhere.")


def read_bytes(fields: Mapping[str, Any], name: str, size: int | None = None) -> bytes:
    """Read bytes, of any size or of this."""
    value = fields.get(name)
    if not isinstance(value, bytes) or size not in (None, len(value)):
        raise _malformed(name)
    return value


def read_list(fields: Mapping[str, Any], name: str, size: int | None = None) -> list[bytes]:
    """Read a list of bytes, each of any size or of this."""
    values = fields.get(name)
    if not isinstance(values, list) or not all(
        isinstance(v, bytes) and size in (None, len(v)) for v in values
    ):
        raise _malformed(name)
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def read_number(fields: Mapping[str, Any], name: str) -> int:
    """Read a whole number below 2^32."""
    value = fields.get(name)
    if not isinstance(value, int) or not _is_number(value):
        raise _malformed(name)
    return value


def read_numbers(fields: Mapping[str, Any], name: str = "sites") -> list[int]:
    """Read a list of different whole numbers below 2^32."""
    values = fields.get(name)
    if not isinstance(values, list) or len(set(values)) < len(values):
        raise _malformed(name)
    if not all(map(_is_number, values)):
        raise _malformed(name)
    return values


def read_by_site(
    fields: Mapping[str, Any], name: str, size: int | None = None, *, sites: str = "sites"
) -> dict[int, bytes]:
    """Read one value of each site, whose numbers are in another field."""
    keys, values = read_numbers(fields, sites), read_list(fields, name, size)
    _same_length(keys, values)
    return dict(zip(keys, values, strict=True))


def _same_length(*columns: list[Any]) -> None:
    if len({len(c) for c in columns}) > 1:
        raise _malformed("sites")
