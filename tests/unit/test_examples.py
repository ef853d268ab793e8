"""The examples run, and what they print is right."""

import doctest
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dppm
from tests.support.documents import ROOT

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def ran(name: str) -> dict[str, Any]:
    """Run an example as a script; return its variables."""
    return runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


def test_one_round() -> None:
    found = ran("one_round.py")
    assert found["error"] < 0.04 < found["length"] / 10
    assert 3 < found["eps"]["the sum"] < 5 < found["eps"]["one site's report"]


def test_your_own_score_model() -> None:
    found = ran("your_own_score_model.py")
    assert torch.allclose(
        found["drawn"], found["SPREAD"], rtol=0.12
    )  # the last step takes σ_min² off


def test_your_own_mechanism() -> None:
    found = ran("your_own_mechanism.py")
    assert found["agreement"] >= 0.75  # a coordinate of size 1 is wrong once in 10^5
    assert 4 < found["price"] < 5


def test_hmc_on_a_ring() -> None:
    found = ran("hmc_on_a_ring.py")
    lengths = found["length"].flatten().numpy()
    assert found["acceptance"] > 0.8
    assert lengths.mean() == pytest.approx(2.02, abs=0.03)  # 6 standard errors
    assert lengths.std() == pytest.approx(0.2, abs=0.02)
    assert np.abs(found["state"].position.mean(dim=0)).max() < 0.2


@pytest.mark.slow
def test_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mnist.py", str(tmp_path / "run")])
    assert ran("mnist.py")["found"]["accuracy"] > 0.93


def test_the_api_does_what_its_docstrings_show(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = dict(vars(dppm))
    for name in ("plan", "simulate", "sample", "load"):  # each goes on from the one before
        (test,) = doctest.DocTestFinder().find(getattr(dppm, name), name, globs=variables)
        test.globs = variables  # the finder has copied them
        assert test.examples
        assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0


def test_the_api_evaluates_and_audits(finished: Path) -> None:
    found = dppm.evaluate(finished)
    assert 0 <= found["accuracy"] <= 1
    games = dppm.audit(finished, canaries=50, images=20, trials=1000, members=100)["games"]
    assert games and all(game["epsilon"] <= game["claim"] for game in games)


def test_every_example_has_a_test_and_is_short() -> None:
    tested = {f"{name.removeprefix('test_')}.py" for name in globals() if name.startswith("test_")}
    assert set(EXAMPLES) <= tested
    for name in EXAMPLES:
        assert len((ROOT / "examples" / name).read_text().splitlines()) <= 70
