"""Bounds of a value as data: a row says what is taken, and refuses the rest by name.

`dppm_model.score.settings` has the rows of a plan's settings, `sampler.settings` those of a
sampler's, `sampler.service.requests` those of requests. The configuration is checked by pydantic
(`dppm_model.settings`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dppm_model.errors import ConfigError, DppmError, PlanError

_UNBOUNDED = 2**63 - 1
_SHOWN = 40  # characters of a wrong value in a refusal: it travels in the headers of an answer


class Row(Protocol):
    """One row of a table of bounds."""

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """Refuse a value by its field's name.

        Raises
        ------
        DppmError
            Of ``kind``, if it is of the wrong type or out of bounds.
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

    Where it is ``exact``, 1 does not stand for 1.0: a plan has one text only.
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
    """True or false, and not what counts as such."""

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if type(value) is not bool:
            refuse(kind, name, value, "Give true or false.")


@dataclass(frozen=True)
class Text:
    """At most so many characters."""

    most: int = sys.maxsize

    def check(self, name: str, value: object, kind: type[DppmError] = ConfigError) -> None:
        """See `Row`."""
        if not isinstance(value, str) or len(value) > self.most:
            most = "" if self.most == sys.maxsize else f" of at most {self.most} characters"
            refuse(kind, name, value, f"Give a text{most}.")


def refuse(kind: type[DppmError], name: str, value: object, hint: str) -> None:
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
    """Refuse a plan's number that is not whole (an int: neither 3.0 nor true), or out of range."""
    Whole(least, most).check(name, value, PlanError)
