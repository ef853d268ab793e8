"""On a GPU: any worker draws the same images, which are nearly those of a CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.score.model import ScoreModel
from sampler.diagnostics import mixing, watch
from sampler.draw import Worker
from sampler.evaluation.classifier import QUICK, accuracy, train_classifier
from sampler.images import Shard, decode_shard
from sampler.noise import ImageNoise
from sampler.settings import METHODS, SamplerSettings
from sampler.tune import tune
from tests.unit.evaluation.toys import squares

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
SHARD = Shard(1, 100, 40)
CONFIG = {
    "mixture": {"band": 16, "components": 2},
    "residual": {"band": 16, "fold": 4, "channels": 8, "blocks": 1},
}


def drawn(device: str, method: str = "hmc") -> tuple[np.ndarray, dict[str, Any], bytes]:
    content = ScoreModel.initial((1, 16, 16), 2, CONFIG).to_bytes()
    worker = Worker(ScoreModel.from_bytes, device=device)
    shard = worker.draw(content, SHARD, 7, SamplerSettings(method))
    images, _, _, info = decode_shard(shard)
    return images.astype(np.float64), info, shard


def test_noise_is_that_of_a_cpu() -> None:
    names = [(2, i) for i in range(500)]
    here, there = (ImageNoise(3, names, device) for device in ("cpu", "cuda"))
    torch.testing.assert_close(there.normal((3, 8, 8)).cpu(), here.normal((3, 8, 8)))
    assert torch.equal(there.uniform().cpu(), here.uniform())


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_draw_the_same_bytes_and_a_cpu_almost(method: str) -> None:
    images, info, shard = drawn("cuda", method)
    assert drawn("cuda", method)[2] == shard
    on_cpu, of_cpu, _ = drawn("cpu", method)
    assert info["evaluations"] == of_cpu["evaluations"]
    assert np.allclose(info["acceptance"], of_cpu["acceptance"], atol=0.02)
    # A Metropolis test may now and then end otherwise, and its image with it.
    assert np.mean(np.abs(images - on_cpu).max((1, 2, 3)) > 2) < 0.1


def test_chains_are_watched_and_tuned_there() -> None:
    model = ScoreModel.initial((1, 16, 16), 2, CONFIG)
    settings, on_gpu = SamplerSettings(num_levels=4), model.to("cuda")
    for here, there in zip(
        watch(model, settings, 4)[0], watch(on_gpu, settings, 4, device="cuda")[0], strict=True
    ):
        assert abs(here.acceptance - there.acceptance) < 0.02
    assert mixing(on_gpu, settings, level=0, draws=40, device="cuda")["r_hat"] > 0
    assert np.allclose(tune(on_gpu, settings, device="cuda"), tune(model, settings), rtol=0.1)


def test_a_classifier_learns_there_too() -> None:
    images, labels = squares(400, 0)
    how = {"classes": 4, "seed": 0, "settings": QUICK.mlp, "device": "cuda"}
    first, second = (train_classifier(images, labels, **how) for _ in range(2))  # type: ignore[arg-type]
    assert accuracy(first, *squares(200, 1)) > 0.95
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
