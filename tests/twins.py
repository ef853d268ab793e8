"""Broken twins: the production code with one deliberate fault, and the test that must catch it.

`pytest -p tests.twins` with the environment variable DPPM_TWIN plants one of `tests/twin_faults.py`
before any test module is imported. `tests/privacy/test_twins.py` does so for each and expects the
test that is named for it to fail. `python -m tests.twins` prints the table of PRIVACY.md.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from tests.twin_faults import TWINS


def plant(name: str) -> None:
    """Put a fault in its place, and wherever the right thing was imported to by name.

    Modules that are imported later, those of the tests among them, find the fault where they look.
    """
    module, _, path = TWINS[name].target.partition(":")
    *outer, last = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    old = vars(owner)[last]
    new = TWINS[name].make(old)
    setattr(owner, last, new)
    if hasattr(new, "__set_name__"):  # a cached property asks for its name
        new.__set_name__(owner, last)
    if not outer:
        for other in list(sys.modules.values()):
            if getattr(other, "__dict__", {}).get(last) is old:
                setattr(other, last, new)


def pytest_configure() -> None:
    """Called by pytest, which loads this module with ``-p tests.twins``."""
    plant(os.environ["DPPM_TWIN"])


def table() -> str:
    """Return the table of PRIVACY.md."""
    rows = [
        "| {} | `{}` `{}` |".format(twin.what, *twin.caught_by.split("::"))
        for twin in TWINS.values()
    ]
    return "\n".join(["| fault | caught by |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
