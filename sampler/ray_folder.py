"""The folder of a Ray of our own: its sockets' paths have to be short."""

from __future__ import annotations

import os

from dppm_model.errors import ConfigError

_MOST = 107  # bytes of a Unix socket's path
# What Ray puts behind the folder: a session with time, microseconds and process, and a socket.
_BEHIND = len("/ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def check_ray_folder() -> None:
    """Raise ConfigError if Ray could not make its sockets below ``RAY_TMPDIR`` or ``TMPDIR``."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if folder := os.environ.get(name):
            if len(os.fsencode(folder)) + _BEHIND > _MOST:
                raise ConfigError(
                    f"{name} has {len(os.fsencode(folder))} bytes: Ray's sockets there would have "
                    f"paths of more than {_MOST}.",
                    f"Set RAY_TMPDIR to a folder of at most {_MOST - _BEHIND} bytes.",
                )
            return
