"""Broken twins: a test runs again with one deliberate fault in the product, and must fail.

    @twin("records are not clipped", "dppm_model.mechanism.quantize:Grid.quantize", unclipped)
    def test_the_norm_never_passes_g(): ...

A fault is as small as a slip of the pen would make it: it wraps or replaces one function and leaves
everything else as it is, so that only a test of the very property can tell. Collection adds a
`TwinItem` for each. All run in one process: the fault is planted before the test's fixtures are
made, and taken out after them; nothing that was computed under it is kept.

    pytest -m twin tests/privacy/test_site.py
    python -m tests.support.mutations            # the table of PRIVACY.md
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

TESTS = Path(__file__).parents[1]
OURS = ("dppm_model", "client", "server", "sampler", "deploy")
# A test that ends in one of these has stumbled over the fault, or over itself: it judged nothing.
STUMBLED = (ImportError, NameError, AttributeError, TypeError, SyntaxError)

Make = Callable[[Any], Any]
_Test = TypeVar("_Test", bound=Callable[..., None])


@dataclass(frozen=True)
class Twin:
    """A fault.

    Attributes
    ----------
    what
        The fault, in a few words.
    target
        ``module:attribute`` or ``module:Class.attribute``.
    make
        Maps what is there to what takes its place.
    only
        ``[parameters]`` under which the test catches it; else the first ones.
    """

    what: str
    target: str
    make: Make
    only: str = ""


def twin(what: str, target: str, make: Make, only: str = "") -> Callable[[_Test], _Test]:
    """Say that the test below catches a fault; see `Twin`."""

    def mark(test: _Test) -> _Test:
        vars(test).setdefault("twins", []).insert(0, Twin(what, target, make, only))
        return test

    return mark


# Faults of more than one file of tests.


def nothing(_: Any) -> Callable[..., None]:
    return lambda *_args, **_kw: None


def times(factor: float) -> Make:
    return lambda old: cache(lambda *args: old(*args) * factor)


def as_property(change: Callable[[Any], Any]) -> Make:
    return lambda old: property(lambda self: change(old.fget(self)))


@contextmanager
def planted(fault: Twin) -> Iterator[None]:
    """Put a fault in its place, and wherever the right thing was imported by name."""
    module, _, path = fault.target.partition(":")
    *outer, last = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    old = vars(owner)[last]
    new = fault.make(old)
    places = [(owner, last)] if outer else list(_places(old))
    for where, name in places:
        setattr(where, name, new)
    if hasattr(new, "__set_name__"):  # a cached property asks for its name
        new.__set_name__(owner, last)
    _forget()
    try:
        yield
    finally:
        for where, name in places:
            setattr(where, name, old)
        _forget()


def _places(value: Any) -> Iterator[tuple[Any, str]]:
    for module in list(sys.modules.values()):
        for name, found in list(getattr(module, "__dict__", {}).items()):
            if found is value:
                yield module, name


def _forget() -> None:
    """Empty the caches of our own functions: they may hold what a fault computed."""
    for found in gc.get_objects():
        # `type`, since isinstance wakes lazy objects of other libraries
        cached = type(found) is functools._lru_cache_wrapper
        if cached and found.__module__.split(".")[0] in OURS:
            found.cache_clear()


class TwinItem(pytest.Function):
    """A test that must fail, because a fault is in the code."""

    fault: Twin

    @classmethod
    def beside(cls, item: pytest.Function, fault: Twin) -> TwinItem:
        """Make the twin of a collected test."""
        made: TwinItem = cls.from_parent(
            item.parent,
            name=f"{item.name} when {fault.what}",
            callspec=getattr(item, "callspec", None),
            callobj=item.obj,
            fixtureinfo=item._fixtureinfo,
            originalname=f"{item.originalname} when {fault.what}",
        )
        made.fault = fault
        made.add_marker("twin")
        made.add_marker("slow")
        return made

    def setup(self) -> None:
        """Plant the fault, then make the fixtures."""
        self._fault = planted(self.fault)
        self._fault.__enter__()
        self.addfinalizer(lambda: self._fault.__exit__(None, None, None))
        super().setup()

    def runtest(self) -> None:
        """Run the test, and fail if it passes."""
        try:
            super().runtest()
        except STUMBLED:
            raise
        except (Exception, pytest.fail.Exception):
            return
        pytest.fail(f"not caught: {self.fault.what}", pytrace=False)


def add_twins(items: list[pytest.Item]) -> None:
    """Add the twins of the collected tests, after all of them."""
    seen: set[tuple[str, int]] = set()
    for item in [i for i in items if isinstance(i, pytest.Function)]:
        test, _, parameters = item.nodeid.partition("[")
        for number, fault in enumerate(getattr(item.obj, "twins", ())):
            if fault.only in ("", f"[{parameters}") and (test, number) not in seen:
                seen.add((test, number))
                items.append(TwinItem.beside(item, fault))


def marked() -> list[tuple[str, str, str]]:
    """Read the files of tests: what each twin does, its file and the test that catches it."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for test in ast.walk(ast.parse(path.read_text())):
            for call in getattr(test, "decorator_list", ()):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "twin":
                    what = ast.literal_eval(call.args[0])
                    only = [ast.literal_eval(k.value) for k in call.keywords if k.arg == "only"]
                    name = getattr(test, "name", "") + "".join(only)
                    found.append((what, str(path.relative_to(TESTS)), name))
    return found


def table() -> str:
    """Return the table of PRIVACY.md."""
    rows = [f"| {what} | `{path}` `{test}` |" for what, path, test in marked()]
    return "\n".join(["| fault | caught by |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
