"""The pretrained network on the closed form: what it computes, and what it is for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from dppm_model.errors import ConfigError, ModelError
from dppm_model.score.class_maps import class_maps
from dppm_model.score.closed_form import build_mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pretrained import START, PretrainedConfig, PretrainedDenoiser
from dppm_model.score.pretrained_network import PretrainedNetwork, first_weights, fold_of
from dppm_model.score.pretrained_query import FineTuningQuery
from dppm_model.score.public_weights import public_data, public_weights
from dppm_model.training.gradient import FineTuningLearner, trained_weights

MIXTURE = {"band": 60, "axes": 20, "components": 3, "principal_axes": 6}


def model(shape: tuple[int, int, int] = (1, 16, 16)) -> ScoreModel:
    return ScoreModel.initial(shape, 2, {"mixture": MIXTURE, "pretrained": {}})


def inputs(shape: tuple[int, int, int], n: int = 3) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    noise, base = torch.randn(n, *shape, generator=g), torch.randn(n, *shape, generator=g)
    maps = torch.rand(n, 2, *shape, generator=g)
    return [noise, base, maps, torch.tensor([0.05, 0.5, 3.0])[:n], torch.full((n,), 0.2)]


def network() -> PretrainedNetwork:
    """All weights away from zero."""
    found = PretrainedNetwork("small").requires_grad_(False)
    g = torch.Generator().manual_seed(1)
    first_weights(found, g)
    for p in found.parameters():
        p.add_(0.02 * torch.randn(p.shape, generator=g))
    return found


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 50, 50), (3, 64, 64), (1, 9, 7)])
def test_images_of_any_size_pass_through_one_body(shape: tuple[int, int, int]) -> None:
    f = network()(*inputs(shape))
    assert f.shape == (3, *shape)
    assert f.isfinite().all()
    assert f.std() > 1e-3


def test_grey_is_seen_as_three_equal_channels() -> None:
    net, (noise, base, maps, sigma, error) = network(), inputs((1, 32, 32))
    colour = [t.repeat_interleave(3, -3) for t in (noise, base, maps)]
    expected = net(*colour, sigma, error).mean(1, keepdim=True)
    assert torch.allclose(net(noise, base, maps, sigma, error), expected, atol=1e-5)


def test_it_begins_at_the_closed_form() -> None:
    net = PretrainedNetwork("small")
    first_weights(net, torch.Generator().manual_seed(0))
    assert not net(*inputs((3, 32, 32))).any()


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 128, 32)])
def test_it_says_which_images_it_is_for(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="grey and RGB images of at most"):
        fold_of(shape)


def test_class_maps_are_the_moments_of_images_of_the_class() -> None:
    rng, start = np.random.default_rng(0), model((3, 8, 8))
    d, r = start.scales.band, start.scales.axes
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0].astype(np.float32)
    root = rng.normal(size=(2, r, r)).astype(np.float32) * 0.05
    arrays = start.arrays | {
        "mixture.axes": turn,
        "mixture.mean": start.arrays["mixture.mean"] + rng.normal(size=(2, 192)) * 0.1,
        "mixture.components": rng.normal(size=(2, 3, r)) * 0.2,
        "mixture.component_weights": np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]),
        "mixture.covariance": root @ root.transpose(0, 2, 1),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    mixture = build_mixture(start.scales, arrays)
    maps, n = class_maps(mixture), 40_000
    for k in range(2):
        x = mixture.sample(torch.full((n,), k), torch.Generator().manual_seed(k))
        std = x.std(0)
        assert ((maps[k, 0] - x.mean(0)).abs() < 5 * std / n**0.5).all()
        assert (maps[k, 1] / std - 1).abs().max() < 0.03


def test_it_adds_its_output_in_the_unit_of_the_error() -> None:
    start = model()
    net, below = network(), build_mixture(start.scales, start.arrays)
    denoiser = PretrainedDenoiser(below, net)
    x, sigma, y = torch.randn(4, 1, 16, 16), torch.full((4,), 0.7), torch.arange(4) % 2
    base = below.denoise(x, sigma, y)
    error = below.posterior_variance(sigma).sqrt()
    noise = (x - base) / torch.sqrt(sigma**2 + error**2)[:, None, None, None]
    f = net(noise, base, denoiser.maps[y], sigma, error)
    expected = base + error[:, None, None, None] * f
    assert torch.allclose(denoiser.denoise(x, sigma, y), expected, atol=1e-6)


def test_private_rounds_move_the_last_layers_and_no_others() -> None:
    start = model((1, 12, 12))
    learner = FineTuningLearner(FineTuningQuery, start, 0)
    config = start.config.part(PretrainedConfig)
    before = config.build(start.shape, start.arrays)
    assert np.array_equal(learner.result().arrays["pretrained.ema"], trained_weights(before))
    size = learner.query().dimension
    learner.step(np.random.default_rng(0).normal(size=size), 0.1)
    after = learner.result().denoiser
    assert isinstance(after, PretrainedDenoiser)
    moved = {
        name
        for (name, p), q in zip(before.named_parameters(), after.network.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert moved == {
        name
        for name, _ in before.named_parameters()
        if name.startswith(("up.", "after.", "outer.2."))
    }
    assert np.array_equal(learner.result().arrays[START], start.arrays[START])


def test_weights_that_are_not_here_or_of_another_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPPM_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match=r"'nobody.safetensors' are not on") as refusal:
        PretrainedConfig.of({"weights": "nobody"}, (1, 16, 16))
    assert str(tmp_path) in refusal.value.hint
    save_file({"weights": np.zeros(5, np.float16)}, tmp_path / "short.safetensors")
    with pytest.raises(ModelError, match="not of size 'small'"):
        PretrainedConfig.of({"weights": "short"}, (1, 16, 16))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        public_weights("bad", "weights")
    with pytest.raises(ConfigError, match="size"):
        PretrainedConfig.of({"size": "vast"}, (1, 16, 16))


def test_its_configuration_goes_through_a_plan() -> None:
    config = model().config
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again.parts[1].public_data == public_data("photographs-small")


def test_another_size_of_image_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match="128"):
        ScoreModel.initial((1, 128, 128), 2, {"mixture": {"band": 16}, "pretrained": {}})
