from dataclasses import replace

import numpy as np
import pytest
import torch

from dppm_model.config import compose_config
from dppm_model.errors import ConfigError
from sampler.evaluation.classifier import (
    QUICK,
    RECIPES,
    THOROUGH,
    EvaluationConfig,
    Settings,
    accuracy,
    features,
    predict,
    shift,
    shrink,
    train_classifier,
)
from tests.unit.evaluation.toys import squares

CNN, MLP = QUICK.cnn, QUICK.mlp
RESNET = replace(THOROUGH.cnn, widths=(8, 16, 16), steps=60, learning_rate=1e-2)
KINDS = [replace(CNN, steps=60), replace(MLP, steps=60), RESNET]


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s.kind)
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 70, 50)], ids=str)
def test_separable_images_are_learnt(settings: Settings, shape: tuple[int, int, int]) -> None:
    images, labels = squares(400, 0, shape=shape)
    trained = train_classifier(images, labels, classes=4, seed=0, settings=settings)
    assert accuracy(trained, *squares(200, 1, shape=shape)) > 0.95
    assert trained.held_out_accuracy > 0.9


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: s.kind)
def test_broken_twin_shuffled_labels_give_chance(settings: Settings) -> None:
    images, labels = squares(400, 0)
    shuffled = np.random.default_rng(2).permutation(labels)
    trained = train_classifier(images, shuffled, classes=4, seed=0, settings=settings)
    # The four classes are exchangeable, so accuracy is far from 1, not exactly 1/4.
    assert accuracy(trained, *squares(200, 1)) < 0.6
    assert trained.held_out_accuracy < 0.75  # 20 images at p = 1/4: above it at 1e-6 or less


def test_same_seed_same_bits_and_no_global_randomness() -> None:
    images, labels = squares(100, 0)
    settings = replace(CNN, steps=20)
    before = torch.random.get_rng_state()
    weights = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        trained = train_classifier(images, labels, classes=4, seed=seed, settings=settings)
        weights.append(torch.cat([p.flatten() for p in trained.network.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.random.set_rng_state(before)
    train_classifier(images, labels, classes=4, seed=0, settings=settings)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_held_out_images_are_not_trained_on() -> None:
    """With all labels random, the held-out ones cannot be known; the others can be memorized."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 1, 12, 12), dtype=np.uint8)
    labels = rng.integers(0, 2, 100)
    settings = replace(MLP, steps=300, held_out=0.5)
    trained = train_classifier(images, labels, classes=2, seed=0, settings=settings)
    right = predict(trained, images) == labels
    assert trained.held_out_accuracy < 0.85  # 50 fair coins: above it at 1e-7
    # Half of the images are known by heart.
    assert right.mean() == pytest.approx((1 + trained.held_out_accuracy) / 2, abs=0.05)


def test_features_are_what_the_last_layer_reads() -> None:
    images, labels = squares(100, 0)
    trained = train_classifier(images, labels, classes=4, seed=0, settings=replace(CNN, steps=20))
    last = trained.network[-1]
    scores = features(trained, images) @ last.weight.detach().double().numpy().T
    scores = scores + last.bias.detach().double().numpy()
    assert np.array_equal(scores.argmax(1), predict(trained, images))


def test_shrink_is_the_mean_over_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 64, 32), dtype=np.uint8)
    blocks = images.reshape(3, 2, 16, 4, 8, 4).astype(float).mean((3, 5))
    assert np.abs(shrink(images, 16).numpy() - blocks).max() <= 0.5
    assert np.array_equal(shrink(images, 64).numpy(), images)
    assert tuple(shrink(images[:, :, :50], 16).shape) == (3, 2, 13, 8)


def test_shift_moves_each_image_by_a_pixel_at_most() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    where = shift(x, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    places = {(int(i) // 9 - 4, int(i) % 9 - 4) for i in where}
    assert places == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}


def test_a_larger_share_moves_further() -> None:
    x = torch.zeros(2000, 1, 33, 33)
    x[:, 0, 16, 16] = 1
    where = shift(x, torch.Generator().manual_seed(0), 8).flatten(1).argmax(1)
    assert {int(i) // 33 - 16 for i in where} == set(range(-4, 5))


def test_flips_teach_the_mirrored_class_and_only_where_asked() -> None:
    """Class 0 is bright at the left, class 1 nowhere: mirrors make the right side class 0."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (400, 1, 12, 12), dtype=np.uint8)
    labels = np.arange(400) % 2
    images[labels == 0, :, :, :4] += 150
    mirrored = images[labels == 0][..., ::-1].copy()
    share = {}
    for flips in (False, True):
        settings = replace(CNN, steps=60, flips=flips)
        trained = train_classifier(images, labels, classes=2, seed=0, settings=settings)
        assert trained.held_out_accuracy == 1
        share[flips] = float((predict(trained, mirrored) == 0).mean())
        assert ("mirrored" in str(settings)) == flips
    assert share[True] > 0.95
    assert share[False] < 0.95
    assert THOROUGH.flipped().cnn == replace(THOROUGH.cnn, flips=True)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_chosen_and_trains(name: str) -> None:
    group = compose_config([f"evaluation={'default' if name == 'quick' else name}"])["evaluation"]
    recipe = RECIPES[EvaluationConfig.of(group, "evaluation").recipe]
    assert recipe.name == name
    settings = replace(recipe.cnn, steps=40, batch=32)
    trained = train_classifier(*squares(400, 0), classes=4, seed=0, settings=settings)
    assert accuracy(trained, *squares(200, 1)) > 0.9
    convolutions = [m for m in trained.network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.out_channels for m in convolutions} == {*recipe.cnn.widths}


@pytest.mark.parametrize("name", ["exhaustive", None, 3, ["quick"]], ids=str)
def test_unknown_recipes_are_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.recipe") as caught:
        EvaluationConfig.of({"recipe": name, "seeds": [0]}, "evaluation")
    assert "thorough" in caught.value.hint


@pytest.mark.parametrize("seeds", [[], 3, "01", [0, 0], [0, 1.5], [-1], [True], [None]], ids=str)
def test_seeds_that_mean_nothing_are_refused(seeds: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.seeds"):
        EvaluationConfig.of({"seeds": seeds}, "evaluation")
