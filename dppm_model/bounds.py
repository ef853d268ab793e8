"""Bounds of values as data: a row defines the accepted values and refuses all others by name.

The annotations of a dataclass give its rows (`bounds_of`): a plan's settings, a sampler's, a site's
policy. `sampler.service.requests` has the rows of requests. Pydantic checks the configuration
(`dppm_model.settings`).

A plan has only one valid text: in it, a whole number is never 3.0 or true, and a number with a
fraction is never 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from dppm_model.errors import ConfigError, DppmError, PlanError
from dppm_model.reading import as_floats

T = TypeVar("T")

_UNBOUNDED = 2**63 - 1
_SHOWN = 40  # characters of a wrong value in a refusal, which travels in the headers of an answer


class Row(Protocol):
    """One row of a table of bounds."""

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """Refuse a value by its field's name.

        Raises DppmError of ``kind`` if it is of the wrong type or out of bounds.
        """
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` to ``most``: neither 3.0 nor true."""

    least: int = -_UNBOUNDED
    most: int = _UNBOUNDED

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if type(value) is not int or not self.least <= value <= self.most:
            over = "or more" if self.most == _UNBOUNDED else f"to {self.most}"
            refuse(kind, name, value, f"Give a whole number, {self.least} {over}.")


@dataclass(frozen=True)
class Real:
    """A number from ``least`` to ``most``; nan lies nowhere.

    With ``exact``, 1 does not stand for 1.0: a plan has only one valid text.
    """

    least: float = -sys.float_info.max
    most: float = sys.float_info.max
    exact: bool = False

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        whole = isinstance(value, int) and not isinstance(value, bool) and not self.exact
        if not (whole or isinstance(value, float)):
            refuse(kind, name, value, "Give a number.")
        elif not self.least <= value <= self.most:  # type: ignore[operator]
            refuse(kind, name, value, f"Give a number from {self.least:g} to {self.most:g}.")


@dataclass(frozen=True)
class Choice:
    """One of a few values; ``says`` names them."""

    options: Sequence[object]
    says: str

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if value not in self.options:
            refuse(kind, name, value, f"Use {self.says}.")


@dataclass(frozen=True)
class Flag:
    """True or false, and no value that merely counts as one."""

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if type(value) is not bool:
            refuse(kind, name, value, "Give true or false.")


@dataclass(frozen=True)
class Text:
    """A text with a maximum length."""

    most: int = sys.maxsize

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if not isinstance(value, str) or len(value) > self.most:
            most = "" if self.most == sys.maxsize else f" of at most {self.most} characters"
            refuse(kind, name, value, f"Give a text{most}.")


def refuse(kind: type[DppmError], name: str, value: object, hint: str) -> NoReturn:
    """Raise a refusal that quotes at most the beginning of the value."""
    if isinstance(value, str):
        value = value[:_SHOWN]
    shown = repr(value)
    raise kind(f"{name} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}.", hint)


def require_positive(name: str, value: float) -> None:
    """Refuse a plan's number that is not finite and above zero."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value <= sys.float_info.max):
        refuse(PlanError, name, value, "Give a finite number above zero.")


def require_within(name: str, value: float, least: float, most: float) -> None:
    """Refuse a plan's number that is not from ``least`` to ``most``."""
    Real(least, most).check(name, value, PlanError)


def require_length(name: str, value: float) -> None:
    """Refuse a plan's length (in units of a record's vector) that float64 does not hold exactly.

    Products of two lengths, a step and a square root keep all their 53 bits between these. Far
    below them float64 rounds to a few bits, up to a factor of two: a record would then move answers
    more than the plan's numbers say (PRIVACY.md, Lemma 9).
    """
    require_within(name, value, 1e-30, 1e30)


def require_whole(name: str, value: int, least: int = 1, most: int = 2**53 - 1) -> None:
    """Refuse a plan's number that is not an int (3.0 and true are not) or is out of range."""
    Whole(least, most).check(name, value, PlanError)


def from_settings(cls: type[T], group: str, values: Mapping[str, Any]) -> T:
    """Build ``cls``, a dataclass, from the values of ``group``; missing keys take their defaults.

    A whole number may stand for a float: people write ``1`` for ``1.0``.

    Raises ConfigError if a key is unknown, a value is of the wrong type, or as ``cls`` says.
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
    """The range of a setting, ends included, in its annotation: ``Annotated[int, Between(1, 9)]``.

    Plans come from other people's files: every plan within these ranges can be computed.
    """

    least: float
    most: float


@lru_cache
def bounds_of(cls: type, *, exact: bool = True) -> Mapping[str, Row]:
    """Return the bounds that a dataclass's annotations give; other fields have none.

    ``exact`` refuses 1 for 1.0, as a plan does.
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


def check_settings(
    settings: Any, group: str = "", kind: type[DppmError] = ConfigError, *, exact: bool = True
) -> None:
    """Refuse fields of a dataclass that are not exactly of their types, or not in their ranges.

    Raises DppmError of ``kind`` naming the field, within its ``group``.
    """
    for name, row in bounds_of(type(settings), exact=exact).items():  # type: ignore[arg-type]
        row.check(f"{group}.{name}" if group else name, getattr(settings, name), kind)
