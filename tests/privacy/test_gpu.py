"""On a real GPU: what a site's questions and the learners do there (`make test-gpu`).

Skipped where there is none. Nobody has run this file yet: no GPU was at hand.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.device import device_of
from dppm_model.run import Run
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import build_query
from tests.conftest import TINY, run
from tests.privacy.test_devices import EVERY, GRID, IDS, asked, drawn, units

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.mark.parametrize(("of", "kind"), EVERY, ids=IDS)
def test_a_round_is_nearly_that_of_a_cpu(of: ModelConfig, kind: str, tmp_path: Path) -> None:
    """A float of another last bit moves an integer by one, or one of two factors of a gradient."""
    model, near = drawn(of, kind), 1e-3 * GRID.steps
    for most in (1, 3):
        who = units(tmp_path / str(most), of, most)
        sums, vectors = asked(who, model, kind)
        sums_there, vectors_there = asked(who, model, kind, device_of("cuda"))
        assert sums.any() and np.linalg.norm(sums - sums_there) <= near * len(who)
        assert np.linalg.norm(vectors - vectors_there, axis=1).max() <= near
        assert max(sum(int(v) ** 2 for v in row) for row in vectors_there) <= GRID.steps**2


@pytest.mark.parametrize(("of", "kind"), EVERY, ids=IDS)
def test_the_sum_with_a_record_is_that_without_it_and_its_own(of: ModelConfig, kind: str) -> None:
    rng, query = np.random.default_rng(0), build_query(kind, drawn(of, kind)).to(device_of("cuda"))
    pixels = rng.integers(0, 256, (70, *of.shape), dtype=np.uint8)
    y, seeds = torch.from_numpy(rng.integers(0, of.classes, 70)), torch.arange(70)

    def total(rows: slice) -> np.ndarray:
        x = query.view(pixels[rows], seeds[rows])
        return query.clipped_sum(x, y[rows].to(query.device), GRID, seeds[rows])

    alone = total(slice(1)).astype(object)
    assert alone.any() and int((alone**2).sum()) <= GRID.steps**2
    np.testing.assert_array_equal(total(slice(70)) - total(slice(1, 70)), alone)


@pytest.mark.parametrize(("of", "kind"), EVERY, ids=IDS)
def test_no_record_depends_on_its_company(of: ModelConfig, kind: str) -> None:
    check_batch_invariance(kind, of, device_of("cuda"))


def test_a_run_trains_there_as_well(tiny: Path, tmp_path: Path) -> None:
    score = ["model=residual", "model.phases.score.rounds=3", "model.residual.network.channels=4"]
    for where in ("cpu", "cuda"):
        folder = tmp_path / where
        assert run("simulate", folder, *TINY, *score, f"device={where}") == 0
        assert Run(folder).model.exists()


@pytest.mark.flower
def test_virtual_sites_answer_on_shares_of_it(tiny: Path, tmp_path: Path) -> None:
    assert run("simulate", tmp_path / "run", *TINY, "backend=flower", "device=cuda") == 0
