"""From a group of the configuration to its dataclass: unknown keys and wrong types are refused.

The same dataclasses are read from a plan, whose text must be the only one that says what it says:
a whole number is never 3.0 or true, and a number with a fraction is never 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dppm_model.bounds import Choice, Flag, Real, Row, Text, Whole
from dppm_model.errors import ConfigError
from dppm_model.reading import as_floats

T = TypeVar("T")


def from_settings(cls: type[T], group: str, values: Mapping[str, Any]) -> T:
    """Build ``cls``, a dataclass, from the values of ``group``; missing keys take their defaults.

    A whole number stands for the same number with a fraction: people write ``1`` for ``1.0``.

    Raises
    ------
    ConfigError
        If a key is unknown, a value is of the wrong type, or as ``cls`` says.
    """
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{group} is {values!r}.", f"Give some of: {', '.join(known)}.")
    if unknown := sorted(map(str, set(values) - set(known))):
        raise ConfigError(
            f"{group}.{unknown[0]} is not a setting.", f"Known are: {', '.join(known)}."
        )
    return cls(**as_floats(cls, values))


@dataclass(frozen=True)
class Between:
    """The range of a setting, ends included; stands in its annotation: ``Annotated[int, …]``.

    A plan is read from another's file: whatever it says within these ranges can be computed.
    """

    least: float
    most: float


def bounds_of(cls: type, *, exact: bool = True) -> Mapping[str, Row]:
    """Return the bounds of a dataclass's fields that their annotations say; others have none.

    Parameters
    ----------
    exact
        Whether 1 is refused for 1.0, as of a plan.
    """
    rows: dict[str, Row] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        limits = next((e for e in extras if isinstance(e, Between)), None)
        if get_origin(kind) is Literal:
            rows[name] = Choice(get_args(kind), " or ".join(map(str, get_args(kind))))
        elif kind is int:
            rows[name] = Whole(int(limits.least), int(limits.most)) if limits else Whole()
        elif kind is float:
            real = Real(exact=exact)
            rows[name] = replace(real, least=limits.least, most=limits.most) if limits else real
        elif kind in (str, bool):
            rows[name] = Text() if kind is str else Flag()
    return rows


def check_settings(settings: Any, group: str) -> None:
    """Refuse fields of a dataclass that are not exactly of their types, or not in their ranges.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    for name, row in bounds_of(type(settings)).items():
        row.check(f"{group}.{name}", getattr(settings, name))
