"""`dppm config`: every key of the configuration, its value, type and meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel
from rich.markup import escape
from rich.padding import Padding

from deploy.show import console, print_json
from dppm_model.bounds import Between
from dppm_model.config import Config, check_config, compose_config, leaves
from dppm_model.planning.registry import PLANNERS
from dppm_model.score.model_config import PARTS
from dppm_model.score.networks import KINDS
from sampler.evaluation.classifier import EvaluationConfig
from sampler.settings import FolderConfig, SamplerSettings

# Groups that other classes than `Config` validate.
GROUPS: dict[str, tuple[type, ...]] = {
    "evaluation": (EvaluationConfig,),
    "sampler": (FolderConfig, SamplerSettings),
    **{f"model.{name}": (part,) for name, part in PARTS.items()},
}
# Groups whose keys depend on the value of one key.
CHOICES: dict[str, tuple[Mapping[str, type], str]] = {
    "mechanism.name": (PLANNERS, "The mechanism; the other keys of the group depend on it."),
    "model.residual.network.kind": (
        KINDS,
        "The network; the other keys of the group depend on it.",
    ),
}
_NAMES = {int: "whole", float: "number", str: "text", bool: "bool", NoneType: "null"}
_NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class Key:
    """A configuration key; ``default`` is None if the default groups lack it."""

    value: Any
    default: Any
    changed: bool
    type: str
    meaning: str


def composed(overrides: Sequence[str]) -> Config:
    """Compose the configuration and check all of it; a `ConfigError` names the first wrong key."""
    config = check_config(compose_config(overrides))
    SamplerSettings.check_group(config.sampler)
    EvaluationConfig.of(config.evaluation, "evaluation")
    return config


def keys(overrides: Sequence[str]) -> dict[str, Key]:
    """Return all keys of the configuration that these overrides compose, by name."""
    usual = dict(leaves(compose_config([])))
    chosen = dict(leaves(composed(overrides).to_dict()))
    owners = GROUPS | {
        group: (options[chosen[key]],)
        for key, (options, _) in CHOICES.items()
        if key in chosen and (group := key.rpartition(".")[0])
    }
    found = {}
    for name, value in chosen.items():
        types, meaning = _field(name, owners)
        changed = name not in usual or usual[name] != value
        found[name] = Key(value, usual.get(name), changed, types, " ".join(meaning.split()))
    return found


def _field(key: str, owners: Mapping[str, tuple[type, ...]]) -> tuple[str, str]:
    """Return type and meaning of a key; both are empty if no field describes it."""
    if key in CHOICES:
        options, meaning = CHOICES[key]
        return " | ".join(options), meaning
    group, _, name = key.rpartition(".")
    for owner in owners.get(group, ()):
        hints = get_type_hints(owner, include_extras=True)
        if name in hints:
            fields = getattr(owner, "model_fields", {})
            said = fields[name].description if fields else attributes(owner)[name]
            return type_text(hints[name]), said
    schema: type[BaseModel] = Config
    *outer, last = key.split(".")
    while outer:
        field = schema.model_fields.get(outer.pop(0))
        kind = field.annotation if field else None
        if get_origin(kind) is dict and outer:
            outer.pop(0)  # the name of an entry
            kind = get_args(kind)[1]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return "", ""
        schema = kind
    hints = get_type_hints(schema, include_extras=True)
    return type_text(hints[last]), schema.model_fields[last].description or ""


def attributes(owner: type) -> dict[str, str]:
    """Parse ``Attributes`` in the docstrings of a dataclass and of those it inherits from."""
    found: dict[str, str] = {}
    for kind in reversed(owner.__mro__):
        said = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
        for block in re.split(r"\n(?=\S)", said.partition("\n\n")[0]):
            names, _, text = block.partition("\n")
            found |= dict.fromkeys(names.split(", "), text)
    return found


def type_text(kind: Any) -> str:
    """Write a type and its range: ``whole >= 1``, ``even | sizes``, ``number in (0, 1] | null``."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_text(inner[0]) + _range_text(inner[1:])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(map(type_text, inner))
    if origin in (tuple, list):
        return f"list of {type_text(inner[0])}"
    return _NAMES.get(kind, "")


def _range_text(metadata: Sequence[Any]) -> str:
    # pydantic's `Field` holds the limits of a nested `Annotated`.
    limits = [limit for one in metadata for limit in getattr(one, "metadata", [one])]
    known = {n: getattr(m, n) for m in limits for n in ("gt", "ge", "lt", "le") if hasattr(m, n)}
    for m in limits:
        known |= {"ge": m.least, "le": m.most} if isinstance(m, Between) else {}
    low = next((n for n in ("gt", "ge") if n in known), None)
    high = next((n for n in ("lt", "le") if known.get(n, _NO_LIMIT) < _NO_LIMIT), None)
    if low and high:
        ends = "(" if low == "gt" else "[", ")" if high == "lt" else "]"
        return f" in {ends[0]}{known[low]:g}, {known[high]:g}{ends[1]}"
    return f" {'>' if low == 'gt' else '>='} {known[low]:g}" if low else ""


def show(overrides: Sequence[str], *, as_json: bool, as_yaml: bool) -> None:
    """`dppm config [OVERRIDE ...]`."""
    if as_yaml:
        print(yaml.safe_dump(composed(overrides).to_dict(), sort_keys=False))
        return
    found = keys(overrides)
    if as_json:
        print_json({name: asdict(key) for name, key in found.items()})
        return
    for name, key in found.items():
        value = yaml.safe_dump(key.value, default_flow_style=True).removesuffix("\n...\n").strip()
        style = "bold yellow" if key.changed else "bold"
        console.print(f"[{style}]{escape(f'{name} = {value}')}[/]  [dim]{escape(key.type)}[/]")
        console.print(Padding(escape(key.meaning), (0, 0, 0, 4)))
    if overrides:
        console.print("Keys in [bold yellow]yellow[/] differ from the default.")
