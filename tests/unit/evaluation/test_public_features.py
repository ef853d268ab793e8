"""Public features: the network, a user's own TorchScript file, distances and their cache."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw
from torch import nn

from dppm_model.errors import ConfigError, DataError
from sampler.evaluation import public_features as module
from sampler.evaluation.public_features import (
    FeatureNetwork,
    efficientnet_lite0,
    extract,
    public_figures,
    torchscript,
)
from tests.unit.evaluation.toys import Mean

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (240, 1, 16, 16), dtype=np.uint8)
OWN = FeatureNetwork("toy", "0" * 64, nn.Sequential(Mean(), nn.Flatten()))


def test_efficientnet_tells_drawings_apart_and_is_the_same_for_any_chunk() -> None:
    """Drawings of one kind lie nearer to each other than to those of the other kind."""
    network = efficientnet_lite0()
    assert network is not None
    images = []
    for shape in ("ellipse", "line"):
        for i in range(6):
            image = Image.new("RGB", (48, 48), (200, 180 - 9 * i, 160))
            draw = ImageDraw.Draw(image)
            for j in range(1 if shape == "ellipse" else 9):
                box = (
                    (8 + i, 8, 30 + 2 * i, 40) if shape == "ellipse" else (5 * j + i, 0, 5 * j, 47)
                )
                getattr(draw, shape)(box, fill=(120, 30 + 9 * i, 90))
            images.append(np.asarray(image).transpose(2, 0, 1))
    found = extract(network, np.stack(images))
    assert found.shape == (12, 1280)
    assert found.min() >= 0  # after the last ReLU6
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert min(alike[:6, :6].min(), alike[6:, 6:].min()) > alike[:6, 6:].max()
    alone = extract(network, np.stack(images[7:8]))
    assert np.abs(alone - found[7]).max() < 1e-4


def test_a_photograph_is_recognised() -> None:
    """The checkpoint's last layer reads the features of Admiral Hopper: a military uniform."""
    network, spec = efficientnet_lite0(), find_spec(module._PACKAGE)
    assert network is not None and spec is not None and spec.submodule_search_locations
    weights = torch.load(Path(spec.submodule_search_locations[0]) / module._WEIGHTS)
    with get_sample_data("grace_hopper.jpg") as file:
        photograph = np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1)[None]
    features = torch.from_numpy(extract(network, photograph)).float()
    shares = nn.functional.linear(features, weights["_fc.weight"], weights["_fc.bias"]).softmax(1)
    assert shares.argmax() == 652
    assert shares.max() > 0.4


def test_grey_is_repeated_to_three_channels() -> None:
    found = extract(OWN, NOISE[:5])
    assert found.shape == (5, 12)
    assert np.array_equal(found[:, :4], found[:, 8:])


def test_halves_of_a_set_are_near_and_noise_moves_them_away() -> None:
    brighter = (NOISE[:120] // 2 + 100).astype(np.uint8)
    options = {"seeds": (0, 1, 2), "most": 200, "cache": None}
    near = public_figures(OWN, NOISE[:80], NOISE[80:160], NOISE[160:], **options)
    far = public_figures(OWN, brighter, NOISE[80:160], NOISE[160:], **options)
    assert near["images"] == far["images"] == 80
    assert near["frechet_real"] == far["frechet_real"]
    assert abs(near["kid"]) < 5 * near["kid_std"]
    assert far["kid"] > 20 * far["kid_std"] > 0
    assert far["frechet"] > 10 * near["frechet"] > 0
    single = public_figures(OWN, NOISE[:80], NOISE[80:160], NOISE[160:], **options | {"seeds": [4]})
    assert single["kid"] == near["kid"]
    assert single["kid_std"] is single["frechet_real_std"] is None


def test_real_features_are_kept_and_damage_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"seeds": (0,), "most": 60, "cache": tmp_path}
    fresh = public_figures(OWN, NOISE[:60], NOISE[60:120], NOISE[120:], **options)
    (kept,) = tmp_path.iterdir()
    seen = []
    plain = module.extract

    def counted(network: FeatureNetwork, images: np.ndarray, *rest: object) -> np.ndarray:
        seen.append(len(images))
        return plain(network, images)

    monkeypatch.setattr(module, "extract", counted)
    assert public_figures(OWN, NOISE[:60], NOISE[60:120], NOISE[120:], **options) == fresh
    assert seen == [60]  # the synthetic ones only
    public_figures(OWN, NOISE[:60], NOISE[60:120], NOISE[100:], **options)
    assert len(list(tmp_path.iterdir())) == 2  # other images, another file
    kept.write_bytes(kept.read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read"):
        public_figures(OWN, NOISE[:60], NOISE[60:120], NOISE[120:], **options)


def test_a_missing_package_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert efficientnet_lite0() is None


class Asked(nn.Module):
    """Returns features only if asked for them, as the widely used Inception file does."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        mean = x.float().mean(dim=(2, 3))
        return mean if return_features else mean[:, :1]


class Spread(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


def test_a_network_of_ones_own_is_asked_for_features(tmp_path: Path) -> None:
    torch.jit.script(Asked()).save(tmp_path / "inception.pt")
    network = torchscript(tmp_path / "inception.pt")
    assert extract(network, NOISE[:3]) == pytest.approx(
        np.repeat(NOISE[:3].mean((2, 3)), 3, axis=1), rel=1e-5
    )
    assert "inception.pt" in network.name


@pytest.mark.parametrize("wrong", ["missing", "folder", "text", "weights", "no features"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "inception.pt"
    if wrong == "folder":
        path.mkdir()
    elif wrong == "text":
        path.write_text("not a network")
    elif wrong == "weights":
        torch.save(Asked().state_dict(), path)
    elif wrong == "no features":
        torch.jit.script(Spread()).save(path)
    with pytest.raises(ConfigError, match=r"evaluation\.inception: .*inception\.pt") as caught:
        torchscript(path)
    assert "TorchScript" in caught.value.hint
