"""The pyramid: it fits the image, looks at records one by one, works locally, and learns."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from dppm_model.config import check_config, compose_config
from dppm_model.errors import ConfigError, ModelError
from dppm_model.mechanism.quantize import Grid
from dppm_model.records.pixels import to_tensor
from dppm_model.score import pyramid_query
from dppm_model.score.closed_form import closed_form
from dppm_model.score.gradient import denoising_losses
from dppm_model.score.mixture_config import MixtureConfig
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import build_query, dimension_of
from dppm_model.score.pyramid import (
    CROP,
    PyramidConfig,
    Stage,
    build_upsampler,
    start_weights,
)
from dppm_model.score.pyramid_query import (
    CroppedRecords,
    DetailQuery,
    crop_records,
    drifted,
    questions,
)
from dppm_model.score.upsampler import context_of, parts
from dppm_model.training.gradient import DetailLearner
from dppm_model.training.shapes import draw_windows
from dppm_model.training.synthetic_pretraining import shape_crops, train_on_shapes

GRID = Grid(1.0, 1 << 20)
SETTINGS = {"mixture": {"band": 16}, "pyramid": {"stages": 2}}
SEEDS = torch.arange(500)


def start(**settings: object) -> ScoreModel:
    pyramid = SETTINGS["pyramid"] | settings
    return ScoreModel.initial((1, 64, 64), 2, SETTINGS | {"pyramid": pyramid})


def pyramid_of(model: ScoreModel) -> PyramidConfig:
    return model.config.part(PyramidConfig)


def network(colours: int = 1) -> torch.nn.Module:
    return build_upsampler(colours, {"detail.start": start_weights(colours)}).requires_grad_(False)


def discs(n: int, seed: int = 0) -> np.ndarray:
    """Soft discs on black: (n, 1, 64, 64) uint8."""
    rng = np.random.default_rng(seed)
    centre, radius = rng.uniform(20, 44, (n, 2, 1, 1)), rng.uniform(6, 18, (n, 1, 1))
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - centre[:, 0], columns - centre[:, 1]) - radius
    return (255 * np.clip(0.5 - distance / 6, 0, 1)).astype(np.uint8)[:, None]


# --- the configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "stages", "base"),
    [
        ((1, 256, 256), None, (1, 64, 64)),
        ((3, 192, 128), None, (3, 96, 64)),
        ((1, 64, 64), 2, (1, 16, 16)),
    ],
)
def test_the_base_is_the_image_halved(image: tuple, stages: int | None, base: tuple) -> None:
    config = PyramidConfig.of({"stages": stages}, image)
    assert config.inner_shape(image) == base
    assert len(config.levels) == config.stages
    model = ScoreModel.initial(image, 2, {"mixture": {"band": 16}, "pyramid": {"stages": stages}})
    assert (model.shape, model.image_shape) == (base, image)
    assert ScoreModel.from_bytes(model.to_bytes()).config == model.config


@pytest.mark.parametrize(
    ("values", "image", "message"),
    [
        ({"stages": None}, (1, 28, 28), "28 x 28 pixels. At most 0 fit"),
        ({"stages": 3}, (1, 64, 64), "stages is 3, but images have 64 x 64 pixels. At most 2"),
        ({"stages": 1}, (1, 66, 66), "the base needs even sides"),
        ({"stages": 1}, (2, 64, 64), "grey and RGB images, not for 2 channels"),
        ({"stages": -1}, (1, 64, 64), "pyramid.stages is -1"),
        ({"stages": 1.5}, (1, 64, 64), "pyramid.stages is 1.5"),
        ({"stages": 2.0}, (1, 64, 64), "pyramid.stages is 2.0"),
        ({"stages": 1, "clip_share": 0}, (1, 64, 64), "pyramid.clip_share is 0"),
        ({"stages": None}, (1, 268, 268), "268 x 268 pixels, but their base has sides of 134"),
        ({"stages": 1, "switch_sigma": 5.0}, (1, 64, 64), "pyramid.switch_sigma is 5.0"),
        ({"stages": 1, "ema": 1.0}, (1, 64, 64), "pyramid.ema is 1.0"),
        ({"stages": 1, "stage": 1}, (1, 64, 64), "pyramid.stage is not a setting"),
    ],
)
def test_refusals(values: dict, image: tuple, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PyramidConfig.of(values, image)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_the_configuration_ends_with_details() -> None:
    facts = ["facts.shape=[3,256,256]", "facts.classes=2", "facts.records=5000"]
    unit = ["privacy.unit=record", "privacy.records_per_person=1"]
    tree = compose_config(["model=pyramid_details", "model.phases.detail.rounds=7", *facts, *unit])
    config = check_config(tree)
    assert [request.name for request in config.phase_requests()][-1] == "detail"
    pyramid = config.score_model().part(PyramidConfig)
    assert (pyramid.stages, pyramid.rounds, pyramid.learning_rate) == (2, 7, 0.004)


def test_a_model_without_details_draws_nothing() -> None:
    with pytest.raises(ModelError, match=r"lacks detail\.ema"):
        _ = start().pyramid


# --- what is seen of a record -------------------------------------------------------------------


def test_a_base_image_is_the_mean_over_squares() -> None:
    pixels = discs(70)
    base = start().encode(pixels)
    means = pixels.reshape(70, 1, 16, 4, 16, 4).mean((3, 5)) / 127.5 - 1
    assert torch.allclose(base, torch.from_numpy(means).float(), atol=1e-5)
    assert start().encode(pixels[:0]).shape == (0, 1, 16, 16)


def test_crops_are_parts_of_the_image_at_each_stage() -> None:
    config = pyramid_of(start())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    crops = crop_records(pixels, SEEDS[:3], config).crops
    assert crops.shape == (3, 2, 1, CROP, CROP)
    assert torch.equal(
        crops[:, 0], avg_pool2d(to_tensor(pixels), 2)
    )  # at 32 pixels there is one place
    for image, crop in zip(to_tensor(pixels), crops[:, 1], strict=True):
        found = [
            torch.equal(image[:, i : i + CROP, j : j + CROP], crop)
            for i in range(0, 33, 4)
            for j in range(0, 33, 4)
        ]
        assert sum(found) == 1


def test_what_is_seen_is_packed_and_unpacked() -> None:
    model, pixels = start(), discs(3)
    seen = crop_records(pixels, SEEDS[:3], pyramid_of(model))
    again = CroppedRecords.unpacked(seen.packed(), 2, model.shape)
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))
    assert torch.allclose(seen.base, model.encode(pixels), atol=1e-6)
    top, left = seen.corner[1].tolist()
    low_res = torch.nn.functional.avg_pool2d(seen.crops[1:2, 0], 2)[0]
    assert torch.allclose(low_res, seen.base[1, :, top : top + 16, left : left + 16], atol=1e-6)


def test_half_of_the_records_are_drawn_anew_by_the_closed_form() -> None:
    """A closed form that knows nothing but the mean drags every image there."""
    model = start()
    seen = crop_records(discs(200), SEEDS[:200], pyramid_of(model))
    y = torch.zeros(200, dtype=torch.int64)
    images, use = drifted(seen, y, SEEDS[:200], pyramid_of(model), closed_form(model))
    assert 70 < int(use.sum()) < 130
    clean = torch.nn.functional.avg_pool2d(seen.crops[:, 0], 2)
    error = (images - clean).square().mean((1, 2, 3)).sqrt()
    assert error.min() > 0.7 * pyramid_of(model).switch_sigma  # noise of the switch is in all
    assert error.max() > 1.3 * pyramid_of(model).switch_sigma  # and in some its errors
    plain = questions(seen.crops, SEEDS[:200], pyramid_of(model))
    with_drift = questions(seen.crops, SEEDS[:200], pyramid_of(model), (images, use))
    changed = (plain[2] != with_drift[2]).flatten(2).any(2)
    assert torch.equal(changed[:, 0], use)
    assert not changed[:, 1].any()
    assert bool((with_drift[4][use, 0] == pyramid_of(model).switch_sigma).all())
    shapes = seen._replace(corner=torch.full((200, 2), -1))
    assert not drifted(shapes, y, SEEDS[:200], pyramid_of(model), closed_form(model))[1].any()


def test_crops_come_from_where_edges_are_but_not_only() -> None:
    pixels = np.zeros((1, 1, 128, 128), dtype=np.uint8)
    pixels[:, :, 96:112, 96:112] = 255
    config = PyramidConfig(stages=3)
    seen = [
        crop_records(pixels, SEEDS[i : i + 1], config).crops[0, 2].std() > 0 for i in range(100)
    ]
    assert 60 < sum(seen) < 100  # a place at random would see it in a sixth of the cases


def test_a_records_questions_do_not_depend_on_its_company() -> None:
    config, pixels = pyramid_of(start()), discs(5)
    whole = questions(crop_records(pixels, SEEDS[:5], config).crops, SEEDS[:5], config)
    alone = questions(crop_records(pixels[3:4], SEEDS[3:4], config).crops, SEEDS[3:4], config)
    assert all(torch.allclose(a[3:4], b, atol=1e-5) for a, b in zip(whole, alone, strict=True))


def test_the_target_of_the_network_makes_the_denoiser_exact() -> None:
    config = pyramid_of(start())
    crops = crop_records(discs(4), SEEDS[:4], config).crops
    r, _, low_res, sigma, _, target = questions(crops, SEEDS[:4], config)
    context = context_of(low_res.flatten(0, 1))
    sigma = sigma.flatten()
    noisy = r.flatten(0, 1) * (context.variance + sigma[:, None, None, None] ** 2).sqrt()
    base, c_out = parts(noisy, sigma, context)
    denoised = context.enlarged + base + c_out * target.flatten(0, 1)
    assert torch.allclose(denoised, crops.flatten(0, 1), atol=1e-3)


# --- the stage ---------------------------------------------------------------------------------


def stage(n: int, side: int = 32, colours: int = 1, level: float = 0.1) -> Stage:
    low_res = torch.rand(n, colours, side, side, generator=torch.Generator().manual_seed(0)) - 0.5
    return Stage(network(colours), low_res, level, classes=2)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_stage_leaves_a_clean_image_alone(colours: int) -> None:
    made = stage(2, colours=colours)
    assert made.shape == (colours, 64, 64)
    x = torch.randn(2, *made.shape, generator=torch.Generator().manual_seed(1))
    denoised = made.denoise(x, torch.full((2,), 1e-4), torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(denoised, x, atol=2e-3)
    assert torch.equal(made.finish(x), context_of(made.low_res).enlarged + x)


def test_few_images_at_a_time_are_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    made, y = stage(5), torch.zeros(5, dtype=torch.int64)
    x = torch.randn(5, *made.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    whole = made.denoise(x, sigma, y)
    monkeypatch.setattr("dppm_model.score.pyramid._PLACES", 2 * 16 * 16)
    assert torch.allclose(made.denoise(x, sigma, y), whole, atol=1e-5)


def test_strips_of_a_large_image_are_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    made, y = stage(2, side=64), torch.zeros(2, dtype=torch.int64)
    x = torch.randn(2, *made.shape, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.1, 0.5])
    whole = made.denoise(x, sigma, y)
    monkeypatch.setattr("dppm_model.score.pyramid._PLACES", 6 * 32)  # strips of 24 of 128 rows
    assert torch.allclose(made.denoise(x, sigma, y), whole, atol=1e-4)
    monkeypatch.setattr("dppm_model.score.pyramid.REACH", 8)  # the twin: seams
    assert not torch.allclose(made.denoise(x, sigma, y), whole, atol=1e-2)


def test_the_network_is_local() -> None:
    """What is far away changes nothing, so crops of training and whole images are one matter."""
    made, y, sigma = stage(1, side=64), torch.zeros(1, dtype=torch.int64), torch.tensor([0.3])
    x = torch.randn(1, *made.shape, generator=torch.Generator().manual_seed(1))
    there = made.denoise(x, sigma, y)
    far = x.clone()
    far[..., 100:] += 1.0
    changed = (made.denoise(far, sigma, y) - there).abs().amax((0, 1, 2))
    assert changed[:64].max() == 0
    assert changed[96:].max() > 0.1


# --- drawn shapes and what they teach -----------------------------------------------------------


def test_drawn_shapes_are_images_with_edges() -> None:
    x = draw_windows(64, 32, 3, torch.Generator().manual_seed(0))
    assert x.shape == (64, 3, 32, 32)
    assert x.abs().max() <= 1
    assert torch.equal(x, draw_windows(64, 32, 3, torch.Generator().manual_seed(0)))
    steps = x.diff(dim=3).abs().amax(1)
    assert (steps.flatten(1).amax(1) > 0.2).float().mean() > 0.7  # nearly all show an edge
    assert (steps < 1e-6).float().mean() > 0.5  # and flat areas


def held_out(weights: np.ndarray, colours: int = 1) -> float:
    made = build_upsampler(colours, {"detail.start": weights})
    config = PyramidConfig(stages=2)
    crops = shape_crops(32, 2, colours, torch.Generator().manual_seed(99))
    with torch.no_grad():
        return float(denoising_losses(made, *questions(crops, SEEDS[:32], config)).mean())


@pytest.mark.parametrize("colours", [1, 3])
def test_the_weights_that_are_shipped_know_shapes(colours: int) -> None:
    weights = start_weights(colours)
    assert np.isfinite(weights).all()
    assert held_out(weights, colours) < 0.75 * held_out(np.zeros_like(weights), colours)


def test_a_short_training_teaches_something_and_is_reproducible() -> None:
    losses: list[float] = []
    train_on_shapes(1, steps=40, progress=lambda _, loss: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    assert np.array_equal(train_on_shapes(1, steps=2), train_on_shapes(1, steps=2))


# --- private rounds -----------------------------------------------------------------------------


def test_rounds_improve_the_details_of_other_records() -> None:
    """Soft discs are unlike the drawn shapes, whose edges are sharp."""
    learner = DetailLearner(DetailQuery, start(rounds=12, warmup=2), 0)
    test = crop_records(discs(32, seed=1), SEEDS[:32], learner.query().config).packed()

    def loss() -> float:
        query = learner.query()
        inputs = query.questions(test, torch.zeros(32, dtype=torch.int64), SEEDS[:32])
        with torch.no_grad():
            return float(denoising_losses(query.network, *inputs).mean())

    before, y = loss(), torch.zeros(64, dtype=torch.int64)
    for t in range(12):
        query, seeds = learner.query(), SEEDS[:64] + 1000 * t
        total = query.clipped_sum(query.view(discs(64), seeds), y, GRID, seeds)
        learner.step(GRID.to_float(total) / 64, 0.0)
    assert loss() < 0.95 * before
    model = ScoreModel.from_bytes(learner.result().to_bytes())
    assert model.pyramid is not None


def test_clipped_sums_keep_their_bound() -> None:
    query = DetailLearner(DetailQuery, start(clip_share=0.01), 0).query()
    for i in range(4):  # with so small a share every gradient is clipped
        one = query.clipped_sum(
            query.view(discs(1, seed=i), SEEDS[i : i + 1]),
            torch.zeros(1, dtype=torch.int64),
            GRID,
            SEEDS[i : i + 1],
        )
        norm = np.linalg.norm(GRID.to_float(one))
        assert 0.99 < norm <= 1.0


def test_blur_of_the_image_below_is_part_of_the_question() -> None:
    config = pyramid_of(start())
    crops = crop_records(discs(8), SEEDS[:8], config).crops
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid_query, "_blurred", lambda x, u: x)
        plain = questions(crops, SEEDS[:8], config)[2]
    assert not torch.equal(plain, questions(crops, SEEDS[:8], config)[2])


def test_a_model_that_lacks_what_the_question_needs_is_refused() -> None:
    model = DetailLearner(DetailQuery, start(), 0).result()
    build_query("detail", model)
    for name in ("detail.weights", "detail.scale", "mixture.mean"):
        with pytest.raises(ModelError, match=name):
            build_query("detail", model.without(name))
    with pytest.raises(ConfigError, match="no pyramid"):
        dimension_of("detail", ModelConfig((1, 28, 28), 2, (MixtureConfig(),)))


def test_without_details_the_base_is_enlarged_and_nothing_is_trained() -> None:
    settings = {"mixture": {"band": 16}, "pyramid": {"stages": 2, "details": False}}
    model = ScoreModel.initial((3, 256, 256), 2, settings)
    assert model.pyramid is None
    assert not [name for name in model.arrays if name.startswith("detail")]
    base = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64)
    assert model.shape == base.shape[1:]
    images = model.decode(base)
    assert images.shape == (2, *model.image_shape)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(
        images[inside], torch.linspace(-1, 1, 64).repeat_interleave(4)[8:-8], atol=0.02
    )
    assert abs(float((torch.nn.functional.avg_pool2d(images, 4) - base).mean())) < 1e-3
    with pytest.raises(ConfigError, match=r"model\.pyramid\.details is false"):
        dimension_of("detail", model.config)
