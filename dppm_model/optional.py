"""Libraries that only some users need: imported when used, and refused by name if missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dppm_model.errors import ConfigError


def needed(module: str, extra: str) -> Any:
    """Import a module that an extra of `pyproject.toml` installs.

    Raises ConfigError with the line to type if it is missing.
    """
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(
            f"{module.partition('.')[0]} is not installed.", f"Type: pip install 'dppm[{extra}]'"
        ) from None
