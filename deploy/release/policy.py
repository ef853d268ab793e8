"""The policy of a release: limits of all conditions, and the keys that may waive some."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from dppm_model.errors import ConfigError
from dppm_model.mechanism.base import View
from dppm_model.reading import read_text, reading
from dppm_model.records.units import Unit
from dppm_model.settings import Natural, Settings, Whole

DEFAULTS = Path(__file__).with_name("policy.yaml")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value: Any) -> Any:
    """Take 1e-5 for a number, which YAML 1.1 takes for a text."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


Limit = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Policy(Settings):
    """The limits; ``policy.yaml`` beside this file explains each, and holds its default."""

    max_epsilon: Limit
    max_delta: Limit
    units: list[Unit]
    views: list[View]
    min_class_size: Whole
    max_repeated_records: Share
    max_copies_of_records: Natural
    max_repeated_images: Natural
    max_nearer_than_real: Share
    min_audit_canaries: Whole
    max_audit_share: Limit
    max_membership_area: Share
    max_membership_found: Share
    override_keys: dict[str, Key]


def read_policy(path: Path | None) -> Policy:
    """Read a policy file; what it leaves out, and all without a file, has its default.

    Raises ConfigError naming a key that is unknown, named twice, or has a wrong value.
    """
    defaults = _read(DEFAULTS)
    own = {} if path is None else _read(path)
    if unknown := [key for key in own if key not in defaults]:
        raise ConfigError(
            f"{path}: {unknown[0]} is not a key of a release policy.",
            f"The keys are {', '.join(defaults)}.",
        )
    return Policy.of(defaults | own)


def _read(path: Path) -> dict[str, Any]:
    with reading(path, ConfigError, "`dppm release --print-policy` prints one to begin with."):
        found = yaml.load(read_text(path), _Loader)
        if found is None:  # an empty file
            return {}
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ValueError("it is not a list of keys and values")
        return found


class _Loader(yaml.SafeLoader):
    """Refuses a key that is named twice, of which YAML would take the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]} is named twice")
        return super().construct_mapping(node, deep)
