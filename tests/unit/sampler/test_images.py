"""Shards, manifest, pictures; sampling in this process: same seed, same pixels, no work twice."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dppm_model.errors import ConfigError, DppmError, RunFolderError, SamplerError
from dppm_model.progress import Progress
from sampler.draw import Worker
from sampler.generate import GenerateResult, generate
from sampler.images import Shard, load_images, read_shard, shard_path, shards_of
from sampler.pool import PoolSettings
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from tests.unit.sampler.mixture import pictures

FAST = SamplerSettings(num_levels=4)
MODEL = pictures()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(MODEL))
    return path


def sample(model: Path, out: Path, **changes: Any) -> GenerateResult:
    arguments = {"per_class": 5, "seed": 1, "settings": FAST, "privacy": {"epsilon_site": 2.0}}
    fixed = {"pool": PoolSettings(0), "shard_size": 4, "loader": pickle.loads}
    return generate(model, out, **(arguments | fixed | changes))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in snapshot(folder).items()}


def interrupt_at(images: int) -> Progress:
    """Ctrl-C once this number of images is there."""

    def progress(text: str, _share: float | None = None, /) -> None:
        if int(text.split()[0]) >= images:
            raise KeyboardInterrupt

    return progress


def test_shards_cover_every_image_once() -> None:
    shards = shards_of(3, 10, 4)
    named = [(s.label, s.first + i) for s in shards for i in range(s.count)]
    assert sorted(named) == [(c, i) for c in range(3) for i in range(10)]
    assert len({s.name for s in shards}) == len(shards)
    assert Shard(3, 100, 4).name == "class-003-000100.npz"


def test_images_come_back_with_their_labels(model: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    result = sample(model, out, progress=lambda *what: seen.append(what))
    images, labels = load_images(out)
    assert images.shape == (15, 1, 6, 6)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [5, 5, 5]
    assert (result.images, result.made, result.divergences) == (15, 15, 0)
    assert result.acceptance is not None
    assert 0.5 < result.acceptance <= 1
    assert seen == [(f"{n} of 15 images", n / 15) for n in (0, 4, 8, 12, 13, 14, 15)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["privacy"] == {"epsilon_site": 2.0}
    assert sorted(manifest["shards"]) == sorted(s.name for s in shards_of(3, 5, 4))
    # Each class looks like itself: nearest class mean of the mixture, right for nearly all.
    means = np.einsum("cj,cjd->cd", MODEL.weights.numpy(), MODEL.means.numpy())
    x = images.reshape(15, -1) / 127.5 - 1
    nearest = ((x[:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == labels).mean() > 0.8


def test_same_seed_same_pixels_in_any_order() -> None:
    shards = shards_of(3, 8, 4)
    there = {s: drawn(s, 1) for s in shards}
    back = {s: drawn(s, 1) for s in reversed(shards)}
    assert there == back
    assert len(set(there.values())) == len(shards)
    assert drawn(shards[0], 2) != there[shards[0]]


def test_more_images_leave_the_first_ones_alone(model: Path, tmp_path: Path) -> None:
    sample(model, tmp_path / "out", per_class=4)
    before = snapshot(tmp_path / "out" / "shards")
    assert sample(model, tmp_path / "out", per_class=8).made == 12
    after = snapshot(tmp_path / "out" / "shards")
    assert before.items() <= after.items()
    assert sample(model, tmp_path / "out", per_class=10).made == 6
    with pytest.raises(KeyboardInterrupt):  # two of the three short last shards are made longer
        sample(model, tmp_path / "out", per_class=11, progress=interrupt_at(30))
    assert sample(model, tmp_path / "out", per_class=11).made == 3
    sample(model, tmp_path / "other", per_class=11)
    assert contents(tmp_path / "other") == contents(tmp_path / "out")
    with pytest.raises(RunFolderError, match="has 11 images"):
        sample(model, tmp_path / "out", per_class=4)


def test_a_second_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    sample(model, tmp_path / "out", png=True)
    before = snapshot(tmp_path / "out")
    assert sample(model, tmp_path / "out", png=True).made == 0
    assert snapshot(tmp_path / "out") == before


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def drawn(shard: Shard, seed: int) -> bytes:
    return Worker(lambda _: MODEL).draw(b"", shard, seed, FAST)


HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "flipped": lambda path: path.write_bytes(flipped(path.read_bytes(), 200)),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "of another class": lambda path: path.write_bytes(drawn(Shard(0, 0, 4), 1)),
    "of other images": lambda path: path.write_bytes(drawn(Shard(1, 4, 4), 1)),
    "of another seed": lambda path: path.write_bytes(drawn(Shard(1, 0, 4), 2)),  # the digest tells
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_shard_is_redone_and_only_it(model: Path, tmp_path: Path, harm: str) -> None:
    out, shard = tmp_path / "out", Shard(1, 0, 4)
    sample(model, out)
    before = snapshot(out)
    HARMS[harm](shard_path(out, shard))
    with pytest.raises(RunFolderError, match=shard.name):
        load_images(out)
    assert sample(model, out).made == 4
    after = snapshot(out)
    assert {name for name in after if after[name] != before[name]} == {f"shards/{shard.name}"}
    assert after[f"shards/{shard.name}"][1] == before[f"shards/{shard.name}"][1]


def test_every_flipped_byte_is_noticed_or_harmless(model: Path, tmp_path: Path) -> None:
    """Also without the manifest's digest (in an unfinished folder): no error, no wrong data."""
    out, shard = tmp_path / "out", Shard(2, 0, 4)
    sample(model, out)
    path = shard_path(out, shard)
    whole, good = path.read_bytes(), read_shard(out, shard)
    assert good is not None
    for place in range(0, len(whole), 3):
        path.write_bytes(flipped(whole, place))
        found = read_shard(out, shard)
        assert found is None or (np.array_equal(found[0], good[0]) and found[1] == good[1])


def test_an_interrupted_run_goes_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sample(model, out, progress=interrupt_at(8))
    with pytest.raises(RunFolderError, match="unfinished"):
        load_images(out)
    assert sample(model, out).made == 7
    sample(model, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 2}, "seed"),
        ({"settings": SamplerSettings(num_levels=5)}, "settings"),
        ({"privacy": {"epsilon_site": 3.0}}, "privacy"),
        ({"shard_size": 5}, "shard_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_of_other_images_is_refused(model: Path, tmp_path: Path, change, word) -> None:
    sample(model, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(RunFolderError, match=f"different {word}"):
        sample(model, tmp_path / "out", **change)
    assert snapshot(tmp_path / "out") == before


def test_strange_folders_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no images"):
        load_images(tmp_path / "nothing")
    sample(model, tmp_path / "out")
    content = model.read_bytes()
    model.write_bytes(pickle.dumps(pictures(modes=3)))
    with pytest.raises(RunFolderError, match="different model"):
        sample(model, tmp_path / "out")
    model.write_bytes(content)
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(RunFolderError, match="no manifest"):
        sample(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"per_class": 0}, ConfigError),
        ({"per_class": 2.0}, ConfigError),
        ({"seed": -1}, ConfigError),
        ({"seed": 2**63}, ConfigError),
        ({"shard_size": 0}, ConfigError),
    ],
    ids=str,
)
def test_arguments_refuse(model: Path, tmp_path: Path, change, error: type[DppmError]) -> None:
    with pytest.raises(error, match=next(iter(change))):
        sample(model, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_png_files_are_the_images(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample(model, out)
    sample(model, out, png=True)  # images that are there already get their pictures too
    images, labels = load_images(out)
    files = sorted((out / "png").rglob("*"))
    assert len([f for f in files if f.is_file()]) == 15
    fourth = np.asarray(Image.open(out / "png" / "1" / "000003.png"))
    np.testing.assert_array_equal(fourth, images[labels == 1][3, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet(tmp_path: Path, channels: int) -> None:
    images = np.zeros((6, channels, 28, 28), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    images[labels == 1] = 255
    images[4] = 128  # the third image of class 0
    contact_sheet(images, labels, tmp_path / "sheet.png", columns=16)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[:2] == (2 + 2 * 58, 24 + 2 + 3 * 58)
    first, second = (sheet[2 + 58 * row : 58 + 58 * row, 26:] for row in (0, 1))
    assert first[:, :56].max() == 0
    assert (first[:, 116:172] == 128).all()
    assert second[:, :56].min() == 255
    assert (sheet[58:60] == 96).all()  # the separator between the rows


@pytest.mark.parametrize(
    "wrong", [{"workers": -1}, {"workers": True}, {"threads": 0}, {"device": "tpu"}], ids=str
)
def test_pools_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PoolSettings(**wrong)


def test_workers_share_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    has = {"CPU": 16.0, "GPU": 2.0}
    assert PoolSettings(device="cuda").options(has) == (2, {"num_cpus": 1, "num_gpus": 1.0})
    assert PoolSettings(3, device="cuda").options(has) == (3, {"num_cpus": 1, "num_gpus": 0.5})
    assert PoolSettings(3, device="cuda:1").options(has) == (3, {"num_cpus": 1})
    assert PoolSettings(threads=4, device="cpu").options(has) == (4, {"num_cpus": 4})
    with pytest.raises(SamplerError, match="on cuda"):
        PoolSettings(device="cuda").options({"CPU": 16.0})
    with pytest.raises(ConfigError, match="cuda:2, which is not there"):
        PoolSettings(device="cuda:2")
