"""A tiny data set in a store of the test's own: two classes of 8×8 images, learnable, instant."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.runner import runtestprotocol
from hypothesis import settings

import sampler.service  # noqa: F401 - before any test imports grpc: it settles how grpc forks
from deploy.cli import main
from dppm_model.records.writing import write_records
from sampler.evaluation import classifier
from tests.support.mutations import TwinItem, add_twins

# `make test` draws the same examples every time; `make test-all` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("repeatable")

TINY = [
    "data=tiny",
    "sites=3",
    "backend=inprocess",
    "privacy.epsilon=8",
    "model.mixture.components=2",
    "model.mixture.band=16",
    "model.mixture.axes=8",
]
SMALL = ["pool.workers=0", "sampler.per_class=20", "sampler.num_levels=6"]
_FINISHED: list[Path] = []  # made by the first test that asks


def run(*arguments: object) -> int:
    return main(list(map(str, arguments)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide a GPU from all tests but its own: the bits of the others are a CPU's."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("gpu"):
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr(torch.cuda, "device_count", lambda: 0)
        yield


def tiny_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright left halves (class 0) or top halves (class 1), with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 1, 8, 8))
    images[labels == 0, :, :, :4] += 150
    images[labels == 1, :, :4, :] += 150
    return images.astype(np.uint8), labels


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    for split, count, seed in (("train", 600, 0), ("test", 200, 1)):
        images, labels = tiny_images(count, seed)
        write_records(
            root / "tiny" / split, images, labels, name="tiny", split=split, classes=("a", "b")
        )
    return root


@pytest.fixture(scope="session")
def people_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images of 120 persons; one owns 150 of 600, another 60."""
    root = tmp_path_factory.mktemp("people")
    for split, count, seed in (("train", 600, 0), ("test", 200, 1)):
        images, labels = tiny_images(count, seed)
        rng = np.random.default_rng(seed)
        owners = np.concatenate([np.arange(120), np.zeros(149), np.ones(59), np.arange(272) % 120])
        owners = rng.permutation(owners.astype(int)) if split == "train" else np.arange(count)
        write_records(
            root / "people" / split,
            images,
            labels,
            name="people",
            split=split,
            classes=("a", "b"),
            persons=owners,
        )
    return root


@pytest.fixture
def people(people_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the data store at the tiny data set that names persons."""
    monkeypatch.setenv("DPPM_DATA", str(people_store))
    return people_store


@pytest.fixture
def tiny(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the data store at the tiny data set."""
    monkeypatch.setenv("DPPM_DATA", str(tiny_store))
    return tiny_store


def short_recipe() -> classifier.Recipe:
    """The quick recipe with few steps."""
    few = {key: replace(getattr(classifier.QUICK, key), steps=20) for key in ("cnn", "mlp")}
    return replace(classifier.QUICK, **few)


@pytest.fixture
def finished(
    tiny: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A run that was trained, sampled and evaluated (by a recipe of few steps)."""
    monkeypatch.setitem(classifier.RECIPES, "quick", short_recipe())
    if not _FINISHED:
        folder = tmp_path_factory.mktemp("finished") / "first"
        assert run("simulate", folder, *TINY) == 0
        assert run("sample", folder, *SMALL) == 0
        assert run("evaluate", folder, "evaluation.public_images=8") == 0
        _FINISHED.append(folder)
    copy = tmp_path / "first"
    shutil.copytree(_FINISHED[0], copy)
    return copy


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    add_twins(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A twin shares no fixture with other tests, also none of a whole session."""
    if not isinstance(item, TwinItem):
        return None
    item.session._setupstate.teardown_exact(None)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runtestprotocol(item, nextitem=None)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
