"""The network of public images, from a plan through private rounds to images."""

import json
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from dppm_model.config import check_config, compose_config
from dppm_model.errors import ConfigError
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from dppm_model.score.pretrained import START, PretrainedDenoiser
from dppm_model.score.pretrained_network import fold_of
from dppm_model.score.public_weights import public_data
from sampler.images import load_images

SETTINGS = ["data=tiny", "sites=2", "backend=inprocess", "privacy.epsilon=8"]
ROUNDS = ["budget_fraction=1", "rounds=2", "sampling_rate=0.1", "sum_alignment=0.5"]


def test_from_a_plan_to_images(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rounds = [f"model.phases.fine_tuning.{key}" for key in ROUNDS]
    assert main(["simulate", str(folder), *SETTINGS, "model=pretrained", *rounds]) == 0
    run = Run(folder)
    privacy = json.loads(run.privacy.read_text())
    assert privacy["public_data"] == list(public_data("photographs-small"))
    assert privacy["phases"][-1]["name"] == "fine_tuning"
    assert privacy["epsilon_secure_sum"] <= 8
    model = ScoreModel.load(run.model)
    assert isinstance(model.denoiser, PretrainedDenoiser)
    assert np.array_equal(model.arrays[START], model.config.public_arrays[START])
    assert not np.array_equal(model.arrays["pretrained.ema"], model.arrays["pretrained.weights"])
    assert main(["sample", str(folder), "sampler.per_class=2", "pool.workers=0"]) == 0
    images, labels = load_images(folder / "samples")[:2]
    assert len(images) == len(labels) == 4


def test_too_few_records_for_rounds_leave_the_network_as_public_images_taught_it(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["simulate", str(folder), *SETTINGS, "model=pretrained"]) == 0
    assert "stays as public images taught it" in " ".join(capsys.readouterr().err.split())
    run = Run(folder)
    assert [phase.name for phase in run.plan().phases][-1] == "covariance"
    assert json.loads(run.privacy.read_text())["public_data"] == list(
        public_data("photographs-small")
    )
    model = ScoreModel.load(run.model)
    assert isinstance(model.denoiser, PretrainedDenoiser)
    assert "pretrained.ema" not in model.arrays
    assert main(["sample", str(folder), "sampler.per_class=2", "pool.workers=0"]) == 0


def test_larger_images_have_a_base_that_the_network_is_for() -> None:
    facts = ["data=x", "facts.shape=[3,256,256]", "facts.classes=2", "facts.records=9000"]
    units = ["privacy.unit=record", "privacy.records_per_person=1"]
    config = check_config(compose_config(["model=pretrained_pyramid", *facts, *units]))
    assert config.score_model().base_shape == (3, 64, 64)
    assert config.phase_requests()[-1].name == "fine_tuning"
    with pytest.raises(ConfigError, match="model=pretrained_pyramid"):
        fold_of((3, 256, 256))
