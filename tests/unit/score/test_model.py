"""`ScoreModel`: what travels comes back the same; what is damaged is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError, DppmError, ModelError
from dppm_model.score.closed_form import class_weights
from dppm_model.score.mixture_config import MixtureConfig
from dppm_model.score.model import ScoreModel
from dppm_model.score.residual import Band, ResidualDenoiser

SETTINGS = {"mixture": {"band": 10, "axes": 6, "components": 2}}


def model(shape: tuple[int, int, int] = (1, 6, 6)) -> ScoreModel:
    return ScoreModel.initial(shape, 3, SETTINGS)


def ask(m: ScoreModel, n: int = 4) -> torch.Tensor:
    x = torch.randn((n, *m.shape), generator=torch.Generator().manual_seed(0))
    return m.denoise(x, torch.linspace(0.1, 3, n), torch.arange(n) % m.classes)


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 4, 5), (1, 28, 28)])
def test_a_model_denoises_before_any_phase(shape: tuple[int, int, int]) -> None:
    d = ask(model(shape))
    assert d.shape == (4, *shape)
    assert torch.isfinite(d).all()
    far = model(shape).denoise(torch.zeros(1, *shape), torch.tensor([1e4]), torch.tensor([0]))
    assert torch.allclose(far, torch.tensor(MixtureConfig().background), atol=1e-3)


def test_save_and_load_are_exact(tmp_path: Path) -> None:
    m = model().replace({"mixture.class_weights": np.array([0.5, 0.2, 0.3], np.float32)})
    m.save(tmp_path / "model.safetensors")
    again = ScoreModel.load(tmp_path / "model.safetensors")
    assert again.config == m.config
    assert again.arrays.keys() == m.arrays.keys()
    for name, array in m.arrays.items():
        assert array.dtype == again.arrays[name].dtype
        assert np.array_equal(array, again.arrays[name])
    assert torch.equal(ask(m), ask(again))
    assert m.to_bytes() == again.to_bytes()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model().save(path)
    content = path.read_bytes()
    for wrong in (b"", content[:100], b"{}" + content, content[:-4]):
        path.write_bytes(wrong)
        with pytest.raises(ModelError):
            ScoreModel.load(path)
    with pytest.raises(ModelError, match="No such file"):
        ScoreModel.load(tmp_path / "absent.safetensors")


def test_arrays_must_fit_the_configuration() -> None:
    m = model()
    with pytest.raises(ModelError, match=r"mixture\.mean"):
        m.replace({"mixture.mean": np.zeros((3, 5), np.float32)})
    with pytest.raises(ModelError, match="variance"):
        ScoreModel.from_bytes(m.without("mixture.variance").to_bytes())
    other = m.to_bytes().replace(b'\\"classes\\": 3', b'\\"classes\\": 4')
    with pytest.raises(ModelError, match=r"mixture\..* of shape"):
        ScoreModel.from_bytes(other)
    none = m.to_bytes().replace(b'\\"classes\\"', b'\\"klasses\\"')
    with pytest.raises(ModelError, match="klasses"):
        ScoreModel.from_bytes(none)


def test_class_weights_are_a_distribution() -> None:
    m = model().replace({"mixture.class_weights": np.array([0.5, 0.25, 0.25], np.float32)})
    assert np.allclose(class_weights(m.arrays), [0.5, 0.25, 0.25])
    with pytest.raises(ModelError, match="do not add up to one"):
        model().replace({"mixture.class_weights": np.array([0.5, 0.5, 0.25], np.float32)})


def test_a_residual_adds_to_the_closed_form() -> None:
    m, base = model(), ask(model())
    ones = torch.nn.Module()
    ones.forward = lambda z, d, sigma, y: torch.ones_like(z)
    scale = m.denoiser.error_std(torch.linspace(0.1, 3, 4))
    band = Band(m.shape, 6)
    m.__dict__["denoiser"] = ResidualDenoiser(m.denoiser, band, ones)
    assert torch.allclose(ask(m), base + scale * band.up(torch.ones(4, *m.shape)), atol=1e-6)
    assert scale.shape == (4, 1, 1, 1)
    assert (scale > 0).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("band", 0),
        ("components", True),
        ("axes", 2.5),
        ("pixel_variance", 0.0),
        ("pixel_variance", float("nan")),
        ("background", -1.5),
        ("background", float("nan")),
        ("count_weight", 1.0),
        ("means_clip_norm", "8"),
        ("colour", 1),
    ],
)
def test_bad_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        MixtureConfig.from_dict({key: value})
    assert isinstance(caught.value, DppmError)
    assert caught.value.hint


def test_settings_survive_a_dictionary() -> None:
    config = MixtureConfig(band=7, background=0.0)
    assert MixtureConfig.from_dict(config.to_dict()) == config
