"""Broken twins: a test runs again with one deliberate fault in the product, and must fail.

`tests/twin_faults.py` lists the faults. For each, collection adds a `TwinItem` beside the test that
must catch it. All run in one process: the fault is planted before the test's fixtures are made, and
taken out after them; nothing that was computed under it is kept.

    pytest -m twin tests/privacy/test_site.py
    python -m tests.support.mutations            # the table of PRIVACY.md
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.twin_faults import TWINS, Twin

OURS = ("dppm_model", "client", "server", "sampler", "deploy")
# A test that ends in one of these has stumbled over the fault, or over itself: it judged nothing.
STUMBLED = (ImportError, NameError, AttributeError, TypeError, SyntaxError)


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
    def beside(cls, item: pytest.Function, name: str, fault: Twin) -> TwinItem:
        """Make the twin of a collected test."""
        twin: TwinItem = cls.from_parent(
            item.parent,
            name=f"{item.name} under {name}",
            callspec=getattr(item, "callspec", None),
            callobj=item.obj,
            fixtureinfo=item._fixtureinfo,
            originalname=f"{item.originalname} under {name}",
        )
        twin.fault = fault
        twin.add_marker("twin")
        twin.add_marker("slow")
        return twin

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
    wanted: dict[str, list[str]] = {}
    for name, fault in TWINS.items():
        wanted.setdefault(f"tests/{fault.caught_by}", []).append(name)
    for item in list(items):
        # A fault that names no parameters is for the test's first ones.
        for node in (item.nodeid, item.nodeid.partition("[")[0]):
            for name in wanted.pop(node, ()):
                assert isinstance(item, pytest.Function)
                items.append(TwinItem.beside(item, name, TWINS[name]))


def table() -> str:
    """Return the table of PRIVACY.md."""
    rows = [
        "| {} | `{}` `{}` |".format(twin.what, *twin.caught_by.split("::"))
        for twin in TWINS.values()
    ]
    return "\n".join(["| fault | caught by |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
