"""Every benchmark can be imported and says what it takes: nothing else runs them in a test."""

import pytest

from tests.support.documents import ROOT

MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "tests" / "benchmarks").glob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_it_can_be_imported(module: str) -> None:
    assert __import__(module, fromlist=["*"]).__doc__
