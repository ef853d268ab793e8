"""Own colour photographs: from a folder of files to synthetic images, through a pyramid."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deploy.cli import main
from deploy.simulate import prepare, simulate
from dppm_model.errors import ModelError
from dppm_model.score import public_weights, pyramid
from dppm_model.score.model import ScoreModel
from sampler.images import load_images

SMALL = [
    "data=photos",
    "sites=3",
    "backend=inprocess",
    "privacy.epsilon=8",
    "model=pyramid_details",
    "model.pyramid.stages=2",
    "model.mixture.components=2",
    "model.mixture.band=16",
    "model.mixture.axes=8",
    "model.phases.detail.rounds=2",
    "model.phases.detail.sampling_rate=0.5",
    "pool.workers=0",
    "sampler.num_levels=5",
    "sampler.stage_num_levels=3",
    "sampler.per_class=3",
    "sampler.png=true",
]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder per class of JPEGs: red discs and blue bars of their own size, 64 pixels a side."""
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    for kind in ("discs", "bars"):
        folder = tmp_path / "photos" / kind
        folder.mkdir(parents=True)
        for i in range(30):
            picture = Image.new("RGB", (64, 64), (240, 240, 230))
            a, b = rng.integers(4, 20, 2).tolist()
            if kind == "discs":
                ImageDraw.Draw(picture).ellipse((a, b, a + 38, b + 38), fill=(200, 30, 30))
            else:
                ImageDraw.Draw(picture).rectangle((a, 0, a + 24, 63), fill=(20, 40, 190))
            picture.save(folder / f"{i:03d}.jpg")
    return tmp_path / "photos"


def test_a_folder_of_photographs_becomes_synthetic_ones(photos: Path, tmp_path: Path) -> None:
    assert main(["data", "import", str(photos), "--name", "photos"]) == 0
    run = tmp_path / "run"
    assert main(["simulate", str(run), *SMALL]) == 0
    assert main(["sample", str(run)]) == 0
    images, labels = load_images(run / "samples")
    assert images.shape == (6, 3, 64, 64)
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
    assert images.std() > 1
    with Image.open(next((run / "samples" / "png" / "1").glob("*.png"))) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
    privacy = json.loads((run / "privacy.json").read_text())
    assert privacy["public_data"] == ["drawn shapes"]
    assert privacy["phases"][-1]["name"] == "detail"
    assert privacy["epsilon_secure_sum"] <= 8


def test_training_takes_its_start_from_what_is_installed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's bundle has no file of weights: they are sought where dppm is installed."""
    assert main(["data", "import", str(photos), "--name", "photos"]) == 0
    run, config, _ = prepare(tmp_path / "run", SMALL)
    monkeypatch.setattr(public_weights, "SHIPPED", tmp_path / "bundle")
    public_weights.public_weights.cache_clear()
    simulate(run, config)
    assert ScoreModel.load(run.model).pyramid is not None
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # the twin: it is nowhere
    public_weights.public_weights.cache_clear()
    with pytest.raises(ModelError, match="not on this machine"):
        pyramid.start_weights(3)
