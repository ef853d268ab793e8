"""Parts of a model: a registry, arrays with roles, a seam for other spaces, any device."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dppm_model.errors import ConfigError, ModelError
from dppm_model.records.pixels import to_tensor
from dppm_model.score import mixture, model_config, pyramid
from dppm_model.score.arrays import array_specs, digest_of, draw_arrays
from dppm_model.score.model import ScoreModel, read_tensors
from dppm_model.score.model_config import PARTS, ModelConfig
from dppm_model.score.networks import KINDS
from dppm_model.score.part import Part
from dppm_model.score.phases import PHASES, build_query, read_question, write_question
from dppm_model.score.pyramid import PyramidConfig
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_images
from tests.support.mutations import twin

MIXTURE = {"band": 16, "axes": 8, "components": 2, "principal_axes": 4}
SMALL = {kind: {"network": {"kind": kind, "channels": 6}, "band": 8} for kind in KINDS}


def whole(config: ModelConfig) -> ScoreModel:
    """A model that has been asked everything."""
    start = ScoreModel.start(config)
    rng = np.random.default_rng(0)
    made = draw_arrays(config, array_specs(config).keys(), rng, 1e-3)
    averages = {
        name: made[name.replace("ema", "weights")] for name in array_specs(config) if "ema" in name
    }
    return start.replace(made | averages)


def with_network(kind: str) -> ModelConfig:
    return ModelConfig.of((1, 16, 16), 3, {"mixture": MIXTURE, "residual": SMALL[kind]})


def with_pyramid() -> ModelConfig:
    return ModelConfig.of((3, 64, 64), 2, {"mixture": MIXTURE, "pyramid": {"stages": 2}})


# --- roles --------------------------------------------------------------------------------------


def test_only_private_arrays_are_sent() -> None:
    config = with_pyramid()
    model, roles = whole(config), {n: spec.role for n, spec in array_specs(config).items()}
    assert {n for n, role in roles.items() if role == "public"} == {"detail.start"}
    assert {n for n, role in roles.items() if role == "derived"} == {"detail.ema"}
    for phase in PHASES.keys() - {"score"}:
        sent = read_tensors(write_question(phase, model))[1]
        assert {roles[name] for name in sent} == {"private"}


def test_a_site_takes_its_own_copy_of_public_weights_and_no_other() -> None:
    config = with_pyramid()
    question = write_question("detail", whole(config))
    there, here = (
        [p for p in query.network.parameters() if not p.requires_grad]  # type: ignore[attr-defined]
        for query in (
            read_question("detail", config, question),
            build_query("detail", whole(config)),
        )
    )
    assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))
    assert any(p.any() for p in there)
    arrays = read_tensors(question)[1]
    for sent in (config.public_arrays["detail.start"], config.public_arrays["detail.start"] + 1):
        with pytest.raises(ModelError, match="more than its arrays"):
            read_question("detail", config, save({**arrays, "detail.start": sent}))


@twin(
    "a site asks by its public weights whatever digest the plan names",
    "dppm_model.score.arrays:ArraySpec.problem",
    lambda old: lambda self, a: old(replace(self, role="private"), a),
)
def test_a_plan_that_names_other_public_weights_is_not_answered() -> None:
    config = with_pyramid()
    own = config.part(PyramidConfig)
    assert own.weights == digest_of(pyramid.start_weights(3))
    other = config.replace(PyramidConfig.from_dict(own.to_dict() | {"weights": "0" * 64}))
    assert other.digest != config.digest
    with pytest.raises(ModelError, match=r"'detail.start' is public, but not the one"):
        read_question("detail", other, write_question("detail", whole(config)))


def test_public_weights_are_most_of_what_a_round_would_send() -> None:
    config = with_pyramid()
    sent = read_tensors(write_question("detail", whole(config)))[1]
    saved = array_specs(config)["detail.start"].nbytes
    assert saved > 2 * sum(a.nbytes for n, a in sent.items() if n.startswith("detail."))


# --- the registry -------------------------------------------------------------------------------


def test_unknown_parts_and_parts_on_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.vae is not a part"):
        ModelConfig.of((1, 8, 8), 2, {"vae": {}})
    with pytest.raises(ConfigError, match="no part below"):
        ModelConfig.of((1, 8, 8), 2, {"residual": SMALL["conv"]})
    raw = with_pyramid().to_dict()
    with pytest.raises(ConfigError, match=r"model\.vae is not a part"):
        ModelConfig.from_dict(raw | {"parts": raw["parts"] | {"vae": {}}})


@pytest.mark.parametrize("config", [*map(with_network, KINDS), with_pyramid()], ids=str)
def test_a_configuration_and_a_model_come_back(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(config.to_dict()) == config
    model = whole(config)
    again = ScoreModel.from_bytes(model.to_bytes())
    assert again.config == config and again.to_bytes() == model.to_bytes()
    x, y = torch.zeros(2, *model.shape), torch.arange(2)
    sigma = torch.tensor([0.2, 1.0])
    assert torch.equal(model.denoise(x, sigma, y), again.denoise(x, sigma, y))


# --- another space ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flipped(Part):
    """A toy of a latent model: the parts below see negatives, halved and turned upside down."""

    strength: float = 0.5

    group = "flipped"

    def encode(self, x: torch.Tensor, arrays: object) -> torch.Tensor:
        return -self.strength * x.flip(2)

    def decode(self, x: torch.Tensor, arrays: object) -> torch.Tensor:
        return -x.flip(2) / self.strength


def test_records_are_encoded_and_samples_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_config, "PARTS", {**PARTS, "flipped": Flipped})
    model = ScoreModel.initial((1, 8, 8), 2, {"mixture": {"band": 16}, "flipped": {}})
    plain = ScoreModel.initial((1, 8, 8), 2, {"mixture": {"band": 16}})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    for phase in ("means", "variances", "pooled_covariance", "covariance", "components"):
        seen = build_query(phase, model).view(pixels, torch.arange(5))
        assert torch.equal(seen, -0.5 * to_tensor(pixels).flip(2))
    assert torch.equal(model.decode(model.encode(pixels)), plain.encode(pixels))
    settings, y = SamplerSettings(method="heun", num_levels=3), torch.tensor([0, 1])
    drawn, other = (
        draw_images(m, y, ImageNoise(0, [(0, 0), (1, 0)]), settings)[0] for m in (model, plain)
    )
    assert torch.equal(drawn, -other.flip(2) / 0.5)


# --- devices ------------------------------------------------------------------------------------


class OneDevice(TorchDispatchMode):
    """Fails at an operation with a tensor that is not on the meta device: it was left behind."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for t in tree_leaves((args, kwargs or {})):
            assert not isinstance(t, torch.Tensor) or t.is_meta or not t.ndim, func
        return func(*args, **(kwargs or {}))


def every_class(y: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """All rows for all classes: which ones occur, nobody can say without numbers."""
    return [(k, torch.arange(len(y), device=y.device)) for k in range(2)]


def elsewhere(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, sigma = torch.empty(4, *shape, device="meta"), torch.empty(4, device="meta")
    return x, sigma, torch.empty(4, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("kind", KINDS)
def test_a_denoiser_goes_to_a_device_as_a_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "_by_class", every_class)
    model = whole(with_network(kind)).to("meta")
    assert model.device == model.denoiser.device == torch.device("meta")
    x, sigma, y = elsewhere(model.shape)
    with OneDevice():
        for found in (model.denoise(x, sigma, y), model.class_shift(x, sigma, y)):
            assert found.shape == x.shape and found.is_meta
    band = model.denoiser.band
    band.rows = torch.zeros(band.rows.shape)  # the twin: it is no buffer
    with pytest.raises(AssertionError), OneDevice():
        model.denoise(x, sigma, y)


def test_so_do_the_stages_of_a_pyramid() -> None:
    stages = whole(with_pyramid()).to("meta").pyramid
    assert stages is not None
    stage = stages.stage(0, torch.empty(4, 3, 16, 16, device="meta"))
    assert stage.device == torch.device("meta")
    with OneDevice():
        assert stage.finish(stage.denoise(*elsewhere(stage.shape))).is_meta
