"""Bounds of a value as data: a row says what is taken, and refuses the rest by name.

`dppm_model.score.settings` has the rows of a plan's settings, `sampler.settings` those of a
sampler's, `sampler.service.bounds` those of requests. The configuration is checked by pydantic
(`dppm_model.settings`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dppm_model.errors import ConfigError

_UNBOUNDED = 2**63 - 1
_SHOWN = 40  # characters of a wrong value in a refusal: it travels in the headers of an answer


class Row(Protocol):
    """One row of a table of bounds."""

    def check(self, name: str, value: object) -> None:
        """Refuse a value by its field's name.

        Raises
        ------
        ConfigError
            If it is of the wrong type or out of bounds.
        """
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` to ``most``: neither 3.0 nor true."""

    least: int = -_UNBOUNDED
    most: int = _UNBOUNDED

    def check(self, name: str, value: object) -> None:
        """See `Row`."""
        if type(value) is not int or not self.least <= value <= self.most:
            over = "or more" if self.most == _UNBOUNDED else f"to {self.most}"
            refuse(name, value, f"Give a whole number, {self.least} {over}.")


@dataclass(frozen=True)
class Real:
    """A number from ``least`` to ``most``; nan lies nowhere.

    Where it is ``exact``, 1 does not stand for 1.0: a plan has one text only.
    """

    least: float = -sys.float_info.max
    most: float = sys.float_info.max
    exact: bool = False

    def check(self, name: str, value: object) -> None:
        """See `Row`."""
        whole = isinstance(value, int) and not isinstance(value, bool) and not self.exact
        if not (whole or isinstance(value, float)):
            refuse(name, value, "Give a number.")
        elif not self.least <= value <= self.most:  # type: ignore[operator]
            refuse(name, value, f"Give a number from {self.least:g} to {self.most:g}.")


@dataclass(frozen=True)
class Choice:
    """One of a few values; ``says`` names them."""

    options: Sequence[object]
    says: str

    def check(self, name: str, value: object) -> None:
        """See `Row`."""
        if value not in self.options:
            refuse(name, value, f"Use {self.says}.")


@dataclass(frozen=True)
class Flag:
    """True or false, and not what counts as such."""

    def check(self, name: str, value: object) -> None:
        """See `Row`."""
        if type(value) is not bool:
            refuse(name, value, "Give true or false.")


@dataclass(frozen=True)
class Text:
    """At most so many characters."""

    most: int = sys.maxsize

    def check(self, name: str, value: object) -> None:
        """See `Row`."""
        if not isinstance(value, str) or len(value) > self.most:
            most = "" if self.most == sys.maxsize else f" of at most {self.most} characters"
            refuse(name, value, f"Give a text{most}.")


def refuse(name: str, value: object, hint: str) -> None:
    """Raise a `ConfigError` that quotes at most the beginning of the value."""
    if isinstance(value, str):
        value = value[:_SHOWN]
    shown = repr(value)
    raise ConfigError(f"{name} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}.", hint)
