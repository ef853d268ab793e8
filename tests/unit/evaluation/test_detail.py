"""Detail of large images: spectra, crops, and the picture of nearest records."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampler.evaluation import detail as module
from sampler.evaluation.classifier import QUICK
from sampler.evaluation.detail import CROP, detail, random_crops, show_nearest


def noise(n: int, side: int = 128, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 1, side, side), dtype=np.uint8)


def test_crops_are_parts_at_places_of_their_own() -> None:
    rows, columns = np.mgrid[:128, :200]
    image = np.stack([rows, columns]).astype(np.uint8)
    crops = random_crops(np.repeat(image[None], 40, axis=0))
    assert crops.shape == (40, 2, CROP, CROP)
    tops, lefts = crops[:, 0, 0, 0], crops[:, 1, 0, 0]
    assert len(set(zip(tops.tolist(), lefts.tolist(), strict=True))) > 30
    assert tops.max() <= 64
    assert (crops[:, 0, -1, 0] - tops == CROP - 1).all()


def test_nearest_records_stand_below_their_images(tmp_path: Path) -> None:
    train = noise(30)
    show_nearest(train[[3, 7]], train, tmp_path / "nearest.png")
    sheet = np.asarray(Image.open(tmp_path / "nearest.png"))
    row = 128 + 2
    assert np.array_equal(sheet[2 : 2 + 128, 26:154], sheet[2 + row : 2 + row + 128, 26:154])


def test_the_whole_judgement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal sets are equal in every figure; grain is seen by the spectrum and by the crops."""
    sides = []

    def trained(images: Any, labels: Any, *, settings: Any, **_: Any) -> str:
        sides.append(settings.side)
        return "classifier"

    monkeypatch.setattr(module, "train_classifier", trained)
    monkeypatch.setattr(module, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(
        module, "features", lambda _, x: x.reshape(len(x), -1, 512).astype(float).std(2)[:, :8]
    )
    smooth = np.repeat(np.repeat(noise(60, 32), 4, axis=2), 4, axis=3)
    labels = np.arange(60) % 2
    grainy = (smooth // 2 + noise(60, seed=1) // 2).astype(np.uint8)
    judge: Any = SimpleNamespace(settings=QUICK.cnn, device="cpu")
    real = (smooth, labels)
    same = detail(judge, real, real, real, 2, tmp_path)
    known = tmp_path / "known.json"
    other = detail(judge, (grainy, labels), real, real, 2, tmp_path, known)
    assert sorted(sides) == [32, 32, 32, 32, 128, 128, 128, 128]
    assert detail(judge, (grainy, labels), real, real, 2, tmp_path, known) == other
    assert sorted(sides[8:]) == [32, 128]  # the figures of the real images are cached
    assert same["spectrum"]["largest_db_below_a_quarter"] == 0
    assert other["spectrum"]["largest_db_below_a_quarter"] > 3
    assert same["frechet_crops"] == pytest.approx(same["frechet_crops_real"])
    assert other["frechet_crops"] > 2 * same["frechet_crops"]
    assert Path(same["spectrum_picture"]).exists()
    assert Path(same["nearest_picture"]).exists()
