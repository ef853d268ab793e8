"""Public pre-training: tasks like a hospital's, and a training that can be stopped."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.cli import main
from dppm_model.errors import ConfigError, DataError
from dppm_model.public import tasks, training
from dppm_model.public.tasks import Task, draw_task
from dppm_model.public.training import denoising_loss, train_public
from dppm_model.records.shards import Manifest, Records
from dppm_model.score.class_maps import class_maps
from dppm_model.score.closed_form import build_mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.public_weights import public_data


def public_set(name: str, shape: tuple[int, int, int], n: int = 1500, classes: int = 3) -> Records:
    """Blots of a colour and a height for each class, on one side or the other."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x, side = rng.integers(60, 120, (n, *shape), dtype=np.uint8), rng.random(n) < 0.5
    for k in range(classes):
        for rows, left in ((y == k) & side, 0), ((y == k) & ~side, shape[2] // 2):
            x[rows, k % shape[0], 2 * k : 2 * k + 9, left : left + 7] += 130
    names = tuple(map(str, range(classes)))
    return Records(Manifest(name, "train", shape, names, n, False, name), x, y, None)


SETS = [public_set("rgb", (3, 32, 32)), public_set("grey", (1, 28, 28), classes=60)]


def test_a_task_is_a_small_data_set_with_a_closed_form_of_it() -> None:
    for number in range(4):
        task, again = (draw_task(SETS, (0, number)) for _ in range(2))
        n, c, h, w = task.images.shape
        assert (h, w) in {(28, 28), (32, 32)}
        assert c in {1, 3}
        assert task.labels.unique().tolist() == list(range(task.mixture.classes))
        assert len(task.labels) == n >= 1000
        assert task.maps.shape == (task.mixture.classes, 2, c, h, w)
        # The closed form is of these images: its class means are theirs, up to noise.
        x = task.images.float() / 127.5 - 1
        means = torch.stack([x[task.labels == k].mean(0) for k in task.labels.unique()])
        assert (task.maps[:, 0] - means).abs().mean() < 0.1
        assert torch.equal(task.images, again.images)


def test_sets_that_are_too_small_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_TRIES", 3)
    with pytest.raises(DataError, match="tiny have too few images"):
        draw_task([public_set("tiny", (1, 12, 12), n=6)], (0, 0))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_POOL": 2, "_PERIOD": 2, "_SAVE": 1, "_BATCH": 8}.items():
        monkeypatch.setattr(training, name, value)


def test_a_stopped_training_goes_on_to_the_same_weights(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The noise of a task's closed form is the system's: a seed does not repeat it.
    once = cache(lambda seed: draw_task(SETS, seed))
    monkeypatch.setattr(training, "draw_task", lambda _, seed: once(seed))

    class Stopped(Exception):
        pass

    def stop(step: int, _loss: float, _closed: float) -> None:
        if step == 4:
            raise Stopped

    whole = train_public("small", SETS, 6, tmp_path / "whole")
    with pytest.raises(Stopped):
        train_public("small", SETS, 6, tmp_path / "parts", progress=stop)
    parts = train_public("small", SETS, 6, tmp_path / "parts")
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(p, q)
    with pytest.raises(ConfigError, match="other data, size, steps or seed"):
        train_public("small", SETS[:1], 6, tmp_path / "parts")


def test_training_beats_the_closed_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Blots on one of two sides, under a prior that knows nothing of them."""
    records = public_set("blots", (3, 16, 16), classes=1)
    model = ScoreModel.initial((3, 16, 16), 1, {"mixture": {"band": 16}})
    mixture = build_mixture(model.scales, model.arrays)
    x, y = torch.from_numpy(records.images), torch.from_numpy(records.labels)
    task = Task(x, y, mixture, class_maps(mixture), "blots")
    monkeypatch.setattr(training, "draw_task", lambda *_: task)
    monkeypatch.setattr(training, "_WARMUP", 5)
    monkeypatch.setattr(training, "_EMA", 0.9)
    network = train_public("small", [records], 60, tmp_path / "checkpoint")
    with torch.no_grad():
        loss, closed = denoising_loss(network, task, 512, torch.Generator().manual_seed(0))
    assert loss < 0.8 * closed


def test_own_weights_make_a_model(
    short: None, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPPM_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("DPPM_DATA", str(tiny_store))
    monkeypatch.setattr(training, "draw_task", lambda _, seed: draw_task(SETS, seed))
    assert main(["pretrain", "mine", "--data", "tiny", "--steps", "2"]) == 0
    card = json.loads((tmp_path / "mine.json").read_text())
    assert card["data"].keys() == {"tiny"}
    assert not (tmp_path / "mine.checkpoint").exists()
    settings = {"mixture": {"band": 16}, "pretrained": {"weights": "mine"}}
    model = ScoreModel.initial((1, 16, 16), 2, settings)
    assert public_data("mine") == ("tiny",) == model.config.parts[1].public_data
    assert main(["pretrain", "Mine!", "--data", "tiny"]) != 0
    assert main(["pretrain", "mine"]) != 0
