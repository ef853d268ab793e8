"""The file of all sites' identity keys, for people to compare."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from dppm_model.errors import ConfigError
from dppm_model.securesum.group import check_peers


def peers_text(keys: Mapping[str, bytes]) -> str:
    """Write the identity keys of all sites, by name, for people to compare."""
    check_peers(keys, "peers")
    lines = [f'"{name}" = "{keys[name].hex()}"\n' for name in sorted(keys)]
    return "# Identity keys of all sites of the federation, this one included.\n" + "".join(lines)


def parse_peers(text: str, path: str) -> dict[str, bytes]:
    """Read what `peers_text` wrote.

    Raises ConfigError if it is malformed; see `check_peers`.
    """
    try:
        keys = {name: bytes.fromhex(value) for name, value in tomllib.loads(text).items()}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}.", "List every site's identity key.") from None
    return check_peers(keys, path)
