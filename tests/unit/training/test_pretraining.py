"""Public records teach the model that private rounds start from, and every file says so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.simulate import plan_of, prepare, resolve, simulate, start_model
from dppm_model.config import initial_model
from dppm_model.errors import ConfigError, DataError
from dppm_model.mechanism.gaussian import GaussianMechanism
from dppm_model.records.pixels import to_tensor
from dppm_model.records.sources import load
from dppm_model.records.writing import write_records
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import PublicData
from dppm_model.training.pretraining import pretrain, public_start
from tests.conftest import TINY, tiny_images
from tests.support.seeded_rng import SeededRNG


@pytest.fixture
def public(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the tiny data set, and a public one of the same classes."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "tiny").symlink_to(tiny / "tiny")
    for split, count in (("train", 300), ("test", 50)):
        images, labels = tiny_images(count, 7)
        folder = root / "open" / split
        write_records(folder, images, labels, name="open", split=split, classes=("a", "b"))
    images, labels = tiny_images(30, 8)
    three = np.arange(30) % 3
    write_records(
        root / "three" / "train", images, three, name="three", split="train", classes=tuple("abc")
    )
    monkeypatch.setenv("DPPM_DATA", str(root))
    return root


def test_the_start_is_what_public_records_teach(public: Path) -> None:
    config = resolve([*TINY, "public=open"])
    start = start_model(config)
    records = load("open", "train")
    u = start.scales.basis.forward(to_tensor(np.asarray(records.images)))
    band = start.scales.band
    for k, found in enumerate(start.arrays["mixture.mean"]):
        own = u[np.asarray(records.labels) == k].mean(0)
        assert np.allclose(found[:band], own[:band], atol=0.02)
        assert np.allclose(found[band:], u.mean(0)[band:], atol=0.02)
    assert start.config.public == PublicData("open", records.manifest.digest)
    assert start_model(config.replace(public=None)).config.public is None  # the twin


def test_a_run_names_its_public_data(public: Path, tmp_path: Path) -> None:
    run, config, _ = prepare(tmp_path / "run", [*TINY, "public=open"])
    assert json.loads(run.privacy.read_text())["public_data"] == ["open"]
    start = ScoreModel.load(run.initial)
    assert start.to_bytes() == start_model(config).to_bytes()
    simulate(run, config)
    assert ScoreModel.load(run.model).config == run.plan().model == start.config
    # The accounting is that of the private rounds: public records cost nothing, and change nothing.
    without = plan_of(resolve(TINY), "x")
    phases = [replace(p, tail=0.5) for p in run.plan().phases]
    assert phases == [replace(p, tail=0.5) for p in without.phases]


def test_public_records_help_where_noise_covers_the_private(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means under heavy noise: from public ones they are nearly right, from constants far off."""
    coins = SeededRNG("noise")
    monkeypatch.setattr("dppm_model.training.pretraining.SecureRNG", lambda: coins)
    config = resolve([*TINY, "public=open"])
    (means,) = (p for p in plan_of(config, "x").phases if p.name == "means")
    loud = GaussianMechanism(0.03 * means.divisor / means.clip_norm)
    phases = [replace(means, mechanism=loud)]
    records = load("tiny", "train")
    u = initial_model(config).scales.basis.forward(to_tensor(np.asarray(records.images)))
    truth = np.stack([u[np.asarray(records.labels) == k].mean(0).numpy() for k in range(2)])

    def error(start: ScoreModel) -> float:
        models = [pretrain(start, phases, records, 0) for _ in range(9)]
        return float(np.median([np.abs(m.arrays["mixture.mean"] - truth).max() for m in models]))

    assert 2 * error(start_model(config)) < error(initial_model(config))


@pytest.mark.parametrize(
    ("override", "match"),
    [("tiny", "private data"), ("three", "3 classes"), ("nowhere", "nowhere")],
)
def test_other_public_data_are_refused(
    public: Path, tmp_path: Path, override: str, match: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=match):
        prepare(tmp_path / "run", [*TINY, f"public={override}"])
    assert not (tmp_path / "run" / "plan.json").exists()


def test_public_start_is_the_same_each_time(public: Path) -> None:
    config = resolve([*TINY, "public=open"])
    records = load("open", "train")
    once, again = (
        public_start(initial_model(config), config.phase_requests(), records, config.seed)
        for _ in range(2)
    )
    assert once.to_bytes() == again.to_bytes()
