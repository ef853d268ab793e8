"""Sampling on a real local Ray: the same bits as in one process, also when workers die."""

import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.cluster_utils

from dppm_model.errors import ModelError, RunFolderError, SamplerError
from dppm_model.score.model import ScoreModel
from dppm_model.score.residual_query import ResidualQuery
from dppm_model.training.gradient import ResidualLearner
from sampler import generate as generate_module
from sampler import pool as pool_module
from sampler.generate import GenerateResult, generate
from sampler.images import load_images
from sampler.pool import PoolSettings
from sampler.service.client import SamplingClient
from sampler.service.server import ServerSettings, serving
from sampler.settings import SamplerSettings
from tests.unit.sampler.mixture import ExactMixture, pictures
from tests.unit.service.toys import PRIVACY

pytestmark = pytest.mark.ray

FAST = SamplerSettings(num_levels=4)


class Slow(ExactMixture):
    """Takes its time, and leaves the process ids of those who use it in a folder."""

    pids: str

    def denoise(self, x, sigma, y):
        (Path(self.pids) / str(os.getpid())).touch()
        time.sleep(0.02)
        return super().denoise(x, sigma, y)


def slow(pids: Path) -> Slow:
    model = pictures()
    result = Slow(model.shape, model.weights, model.means, model.covariances)
    result.pids = str(pids)
    pids.mkdir()
    return result


class Deadly(ExactMixture):
    """Takes its process down at class 1."""

    def denoise(self, x, sigma, y):
        if int(y[0]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().denoise(x, sigma, y)


@pytest.fixture(autouse=True)
def nothing_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    assert not ray.is_initialized()
    found = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, handler)
    if "cluster" not in request.fixturenames:
        assert found is handler  # Ray puts its own, unless we put it back


@pytest.fixture
def cluster() -> Iterator[ray.cluster_utils.Cluster]:
    """A head without cores, for nodes to join; it takes over SIGTERM."""
    made = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def sample(path: Path, model: ExactMixture, out: Path, **changes: Any) -> GenerateResult:
    if not path.exists():  # a second pickle of the same tensors may have other bytes
        path.write_bytes(pickle.dumps(model))
    arguments = {"per_class": 10, "seed": 1, "settings": FAST, "privacy": {}, "shard_size": 4}
    of_pool = {key: changes.pop(key) for key in ("workers", "threads", "address") if key in changes}
    pool = PoolSettings(**of_pool, device="cpu")
    return generate(path, out, pool=pool, **(arguments | {"loader": pickle.loads} | changes))


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_ray_equals_local_bit_for_bit(tmp_path: Path) -> None:
    path, model = tmp_path / "model", pictures()
    alone = sample(path, model, tmp_path / "local", workers=0)
    together = sample(path, model, tmp_path / "ray", workers=2)
    assert (together.images, together.made) == (alone.images, alone.made) == (30, 30)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert all(50 < (r.memory or 0) < 10_000 for r in (alone, together))  # MB
    begun = time.monotonic()
    again = sample(path, model, tmp_path / "ray", workers=2)
    assert (again.made, again.memory) == (0, None)
    assert time.monotonic() - begun < 1  # nothing to do: Ray is not even started
    with pytest.raises(RunFolderError, match="threads"):  # they can change the last bits
        sample(path, model, tmp_path / "ray", workers=1, threads=2)


def test_workers_of_several_threads(tmp_path: Path) -> None:
    path, model = tmp_path / "model", pictures()
    sample(path, model, tmp_path / "local", workers=0, threads=2)
    sample(path, model, tmp_path / "ray", workers=1, threads=2)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    with pytest.raises(SamplerError, match="threads=10000"):
        sample(path, model, tmp_path / "none", threads=10_000)


def test_a_score_model_with_a_network_is_drawn_alike_on_ray_and_here(tmp_path: Path) -> None:
    """The product's own model file: a mixture, and a residual network that is not zero."""
    config = {
        "mixture": {"band": 8, "components": 2},
        "residual": {"band": 8, "network": {"kind": "conv", "channels": 4, "blocks": 1}},
    }
    learner = ResidualLearner(ResidualQuery, ScoreModel.initial((1, 8, 8), 2, config), seed=0)
    learner.step(np.random.default_rng(0).normal(size=learner.query().dimension), 0.0)
    learner.result().save(tmp_path / "model")
    arguments = {"per_class": 6, "seed": 1, "settings": FAST, "privacy": {}, "shard_size": 3}
    for workers in (0, 2):
        generate(
            tmp_path / "model", tmp_path / f"{workers}", pool=PoolSettings(workers), **arguments
        )  # type: ignore[arg-type]
    assert files(tmp_path / "0") == files(tmp_path / "2")
    assert np.ptp(load_images(tmp_path / "0")[0]) > 0


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    path, pids, killed = tmp_path / "model", tmp_path / "pids", []
    model = slow(pids)

    def kill_one(_text: str, share: float) -> None:
        if 0 < share < 1 and not killed:
            victim = next(int(p.name) for p in pids.iterdir())
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    result = sample(path, model, tmp_path / "ray", workers=2, progress=kill_one)
    assert killed
    assert result.made == 30
    assert len(list(pids.iterdir())) == 3  # two workers, and the one that took the dead one's place
    sample(path, model, tmp_path / "local", workers=0)
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.slow
def test_refusals_of_workers_keep_their_words(tmp_path: Path) -> None:
    broken = pictures()
    broken.means[1] *= float("nan")
    with pytest.raises(SamplerError, match=r"class-001-\d+.npz: .* not finite") as refusal:
        sample(tmp_path / "broken", broken, tmp_path / "out", workers=1)
    assert "sampler.step_size" in refusal.value.hint
    model = pictures()
    deadly = Deadly(model.shape, model.weights, model.means, model.covariances)
    with pytest.raises(SamplerError, match=r"died 4 times at class-001-000000.npz"):
        sample(tmp_path / "deadly", deadly, tmp_path / "away", workers=1)
    with pytest.raises(ModelError):
        generate(tmp_path / "no", tmp_path, per_class=1, seed=0, settings=FAST, privacy={})


@pytest.mark.slow
def test_a_ray_that_is_up_is_used_and_left_up(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    try:
        assert sample(tmp_path / "model", pictures(), tmp_path / "out").made == 30
        assert ray.is_initialized()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)  # this Ray was the test's own


def test_a_cluster_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as reserved:  # bound but not listening: nobody answers there
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(SamplerError, match=f"No Ray cluster answers at {address}"):
            sample(tmp_path / "model", pictures(), tmp_path / "out", address=address)
    with pytest.raises(SamplerError, match="Ray did not start"):
        sample(tmp_path / "model", pictures(), tmp_path / "out", address="nonsense")


@pytest.mark.slow
def test_a_lost_node_loses_no_image_and_makes_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: ray.cluster_utils.Cluster
) -> None:
    """A node of two goes away in mid job; its actor has nowhere to start again."""
    monkeypatch.setattr(pool_module, "_PATIENCE", 1.0)
    path, pids, written = tmp_path / "model", tmp_path / "pids", []
    model = slow(pids)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    right = generate_module.write_bytes

    def write(target: Path, content: bytes) -> None:
        written.append(target.name)
        right(target, content)

    monkeypatch.setattr(generate_module, "write_bytes", write)

    def lose_one(_text: str, share: float) -> None:
        if len(nodes) == 2 and 0 < share < 1:
            own = ray.get_runtime_context().get_node_id()  # not the one that this process is on
            victim = next(node for node in nodes if node.node_id != own)
            nodes.remove(victim)
            cluster.remove_node(victim, allow_graceful=False)

    result = sample(
        path, model, tmp_path / "ray", workers=2, address=cluster.address, progress=lose_one
    )
    assert len(nodes) == 1 and result.made == 30
    assert len(written) == len(set(written))
    sample(path, model, tmp_path / "local", workers=0)
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_a_service_on_ray_gives_the_same_images(tmp_path: Path) -> None:
    sample(tmp_path / "model", pictures(), tmp_path / "local", workers=0, per_class=12)
    images, labels = load_images(tmp_path / "local")
    with (
        serving(
            tmp_path / "model",
            privacy=PRIVACY,
            sampler=FAST,
            settings=ServerSettings(address="127.0.0.1:0", pool=PoolSettings(2), shard_size=4),
            loader=pickle.loads,
        ) as running,
        SamplingClient(running.address) as client,
    ):
        drawn = list(client.sample({0: 9, 2: 9}, seed=1, first=3))
    assert len(drawn) == 18
    for image in drawn:
        np.testing.assert_array_equal(image.pixels, images[labels == image.label][image.index])
