"""From a group of the configuration to its dataclass; an unknown key is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from dppm_model.errors import ConfigError

T = TypeVar("T")


def from_settings(cls: type[T], group: str, values: Mapping[str, Any]) -> T:
    """Build ``cls``, a dataclass, from the values of ``group``; missing keys take their defaults.

    Raises
    ------
    ConfigError
        If a key is unknown, or as ``cls`` says.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(
            f"{group}.{unknown[0]} is not a setting.", f"Known are: {', '.join(known)}."
        )
    return cls(**values)
