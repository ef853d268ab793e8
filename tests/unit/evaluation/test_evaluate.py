import json
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dppm_model.errors import DataError
from dppm_model.progress import silent
from sampler.evaluation import evaluate as module
from sampler.evaluation.classifier import QUICK, Recipe, Records
from sampler.evaluation.evaluate import evaluate
from tests.unit.evaluation.toys import Mean, squares

TRAIN, TEST, SYNTHETIC = squares(400, 0), squares(200, 1), squares(200, 2)
PERMUTED = (TEST[0], np.random.default_rng(5).permutation(TEST[1]))


ACCURACIES = [
    f"{name}{kind}{real}"
    for name in ("accuracy", "balanced_accuracy")
    for kind in ("", "_mlp")
    for real in ("", "_real")
]
SHORT = Recipe("short", replace(QUICK.cnn, steps=30), replace(QUICK.mlp, steps=30))


def judge(synthetic: Records, test: Records = TEST, cache: Path | None = None, **more) -> dict:
    return evaluate(
        synthetic,
        TRAIN,
        test,
        dataset="squares",
        classes=4,
        cache=cache,
        progress=silent,
        **{"recipe": SHORT} | more,
    )


def without_seconds(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "seconds"}


def test_good_images_reach_the_baseline_and_mislabelled_ones_do_not() -> None:
    good = judge(SYNTHETIC)
    assert good["accuracy"] > 0.9
    assert good["accuracy_real"] > 0.9
    assert good["accuracy_mlp"] > 0.9
    assert min(good["accuracy_per_class"]) > 0.8
    assert min(good["recognised_per_class"]) > 0.8
    images, labels = SYNTHETIC
    bad = judge((images, (labels + 1) % 4))
    assert bad["accuracy"] < 0.1
    assert bad["accuracy_mlp"] < 0.1
    assert max(bad["recognised_per_class"]) < 0.1
    assert bad["accuracy_real"] == good["accuracy_real"]


def test_the_cache_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = judge(SYNTHETIC, cache=tmp_path, seeds=(0, 3))
    assert fresh["seeds"] == [0, 3]
    assert len(list(tmp_path.iterdir())) == 2
    kept = module.train_classifier

    def only_synthetic(images, *rest, **more):
        assert images is SYNTHETIC[0]
        return kept(images, *rest, **more)

    monkeypatch.setattr(module, "train_classifier", only_synthetic)
    assert without_seconds(judge(SYNTHETIC, cache=tmp_path, seeds=(0, 3))) == without_seconds(fresh)
    # Another test set is another baseline: the cache must not answer for it.
    with pytest.raises(AssertionError):
        judge(SYNTHETIC, (TEST[0], TEST[1][::-1].copy()), cache=tmp_path)


def test_the_cache_knows_recipes_apart(tmp_path: Path) -> None:
    first = judge(SYNTHETIC, cache=tmp_path)
    wider = Recipe("wider", replace(SHORT.cnn, widths=(24, 32, 32)), SHORT.mlp)
    other = judge(SYNTHETIC, cache=tmp_path, recipe=wider)
    assert len(list(tmp_path.iterdir())) == 2
    assert (first["recipe"], other["recipe"]) == ("short", "wider")
    assert "24-32-32" in other["classifier"]
    assert other["distances"] != first["distances"]  # another judge, other features
    again = judge(SYNTHETIC, cache=tmp_path, recipe=wider)  # read back: the widths fit
    assert without_seconds(again) == without_seconds(other)


def test_every_figure_has_a_spread() -> None:
    mixed = SYNTHETIC[0], np.random.default_rng(3).permutation(SYNTHETIC[1])
    result = judge(mixed, seeds=(0, 1, 2))
    single = judge(SYNTHETIC)
    for name in ACCURACIES:
        values = result[f"{name}_by_seed"]
        assert len(values) == 3
        assert result[name] == pytest.approx(sum(values) / 3)
        assert result[f"{name}_std"] == pytest.approx(stdev(values))
        assert single[f"{name}_std"] is None
    assert result["accuracy_std"] > 0
    assert len(result["accuracy_per_class_std"]) == 4
    assert single["accuracy_per_class_std"] is None
    assert len(result["coverage"]["coverage_per_class_std"]) == 4
    for group, name in (
        *(("distances", name) for name in ("frechet", "frechet_real", "kernel", "kernel_real")),
        *(("coverage", name) for name in ("density", "coverage", "density_real", "coverage_real")),
        *(("spectrum", name) for name in ("distance_db", "distance_db_real")),
    ):
        assert result[group][f"{name}_std"] > 0
        assert single[group][f"{name}_std"] is None


def test_balanced_accuracy_counts_every_class_alike() -> None:
    """On a test set with three of four images of class 0, a guess of 0 is right for a quarter."""
    images, labels = squares(400, 1)
    uneven = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels != 0)[:33]])
    test = images[uneven], labels[uneven]
    wrong = SYNTHETIC[0], np.where(SYNTHETIC[1] == 0, 0, SYNTHETIC[1] % 3 + 1)  # 1 to 3 in turn
    found = judge(wrong, test)
    for kind in ("", "_mlp"):
        assert found[f"accuracy{kind}"] == pytest.approx(100 / 133, abs=0.05)
        assert found[f"balanced_accuracy{kind}"] == pytest.approx(1 / 4, abs=0.05)
        assert found[f"balanced_accuracy{kind}_real"] > 0.9
    assert found["balanced_accuracy"] == pytest.approx(np.mean(found["accuracy_per_class"]))


def test_public_features_stand_beside_our_own(tmp_path: Path) -> None:
    """Asked for, they are there; a network of the user's own stands beside them."""
    path = tmp_path / "own.pt"
    torch.jit.script(torch.nn.Sequential(Mean(), torch.nn.Flatten())).save(path)
    found = judge(SYNTHETIC, public_images=16, inception=path)
    assert found["public_distances"]["images"] == found["inception_distances"]["images"] == 16
    assert "EfficientNet" in found["public_distances"]["features"]
    assert "own.pt" in found["inception_distances"]["features"]
    left_out = judge(SYNTHETIC)
    assert left_out["public_distances"] is left_out["inception_distances"] is None


def test_same_result_on_any_number_of_cores() -> None:
    alone = judge(SYNTHETIC)
    torch.set_num_threads(3)  # the fixture of this folder sets it back
    assert without_seconds(judge(SYNTHETIC)) == without_seconds(alone)


def test_test_labels_decide_nothing(tmp_path: Path) -> None:
    """The baseline has the same weights whatever the labels of the test records."""
    weights = []
    for name, test in (("a", TEST), ("b", PERMUTED)):
        judge(SYNTHETIC, test, cache=tmp_path / name)
        (file,) = (tmp_path / name).iterdir()
        weights.append([tensor for _, tensor in sorted(load_file(file).items())])
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_result_is_json_with_the_agreed_keys() -> None:
    result = judge(SYNTHETIC)
    read = json.loads(json.dumps(result))
    assert read == result
    agreed = "dataset accuracy accuracy_real synthetic_images classifier seeds distances nearest"
    assert {*agreed.split(), "coverage", "recipe"} <= read.keys()
    assert "squares" in read["distances"]["features"]
    assert read["coverage"]["features"] == read["distances"]["features"]
    assert read["images_per_class"] == [50] * 4


images, labels = SYNTHETIC
REFUSED = {
    "other shape": ((images[:, :, :-1], labels), "synthetic images are uint8"),
    "floats": ((images.astype(np.float32), labels), "float32"),
    "labels short": ((images, labels[:-1]), "199 labels"),
    "label too high": ((images, labels + 1), "labels go from 1 to 4"),
    "label negative": ((images, labels - 1), "labels go from -1"),
    "class missing": ((images[labels != 2], labels[labels != 2]), "Class 2 has 0"),
    "too few": ((images[:36], labels[:36]), "Class 0 has 9"),
    "none": ((images[:0], labels[:0]), "Class 0 has 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    synthetic, cause = REFUSED[name]
    with pytest.raises(DataError, match=cause) as caught:
        judge(synthetic)
    assert caught.value.hint
