"""From a configuration back to the command line that makes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dppm_model.config import CONF, compose_config
from dppm_model.errors import ConfigError

Tree = Mapping[str, Any]

_GROUPS = ("model", "mechanism", "sampler")
# Looked up in the data; and what `dppm evaluate` is told when it is run.
_LEFT_OUT = ("facts", "evaluation")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


def choices(group: str) -> dict[str, Any]:
    """Return every configuration of a group that can be chosen, by name."""
    known = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        try:
            known[path.stem] = compose_config([f"{group}={path.stem}"])[group]
        except ConfigError:  # a part of others, no choice of its own
            continue
    return known


def overrides_of(tree: Tree) -> list[str]:
    """Return the fewest overrides found that make ``tree`` from the defaults.

    Of each group the choice that is nearest is named, where it is not the default; after that
    come the single keys that differ. Left out are ``facts``, which `dppm simulate` looks up, and
    ``evaluation``, which belongs to another command.
    """
    wanted = {key: value for key, value in tree.items() if key not in _LEFT_OUT}
    plain = [f"privacy.epsilon={_value(wanted['privacy']['epsilon'])}"]  # the model depends on it
    named = list(plain)
    default = compose_config(plain)
    for group in _GROUPS:
        if wanted[group] == default[group]:
            continue
        name, found = min(
            choices(group).items(), key=lambda pair: len(list(_differences(pair[1], wanted[group])))
        )
        if found != default[group]:
            named.append(f"{group}={name}")
    start = {k: v for k, v in compose_config(named).items() if k not in _LEFT_OUT}
    usual = compose_config([])["privacy"]["epsilon"]
    changed = sorted(
        [*named, *_differences(start, wanted)], key=lambda o: not o.startswith("data=")
    )
    return [o for o in changed if o != f"privacy.epsilon={_value(usual)}"]


def _differences(old: Tree, new: Tree, prefix: str = "") -> Iterator[str]:
    """Yield the overrides that turn one tree into another."""
    for key in [*new, *(k for k in old if k not in new)]:
        name = f"{prefix}{key}"
        if key not in new:
            yield f"~{name}"
        elif isinstance(new[key], Mapping) and isinstance(old.get(key), Mapping):
            yield from _differences(old[key], new[key], f"{name}.")
        elif key not in old or old[key] != new[key]:
            yield f"{'+' * (key not in old)}{name}={_value(new[key])}"


def _value(value: Any) -> str:
    """Write a value as hydra reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def changed(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Say what differs between two configurations, a line a key."""
    found = []
    for key in old.keys() | new.keys():
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += changed(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {a}, now {b}")
    return sorted(found)
