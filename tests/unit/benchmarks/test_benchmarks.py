"""Every benchmark can be imported and says what it takes: nothing else runs them in a test."""

from pathlib import Path

import pytest

from deploy.simulate import resolve
from tests.benchmarks.ablation import VARIANTS, overrides_of
from tests.support.documents import ROOT

MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "tests" / "benchmarks").glob("*.py")
)


@pytest.mark.parametrize("module", MODULES)
def test_it_can_be_imported(module: str) -> None:
    assert __import__(module, fromlist=["*"]).__doc__


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_the_ablation_is_a_configuration_of_its_own(name: str, tiny: Path) -> None:
    # At this epsilon even a tiny data set pays for components.
    whole, config = (resolve(overrides_of(n, "tiny", 500.0)) for n in ("central", name))
    same = whole.phase_requests() == config.phase_requests()
    assert same == (name in ("central", "no noise"))
