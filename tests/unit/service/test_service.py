"""The service as its callers see it: the images of `generate`, and clear refusals."""

import pickle
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from PIL import Image

from dppm_model.errors import (
    ConfigError,
    DppmError,
    JobCancelled,
    QuotaExceeded,
    SamplerError,
    ServerBusy,
    ServiceError,
    UnknownJob,
)
from sampler.generate import generate
from sampler.images import load_images
from sampler.pool import PoolSettings
from sampler.service import sampling_pb2 as pb
from sampler.service.client import SamplingClient
from sampler.service.methods import SamplingStub
from sampler.service.requests import ShardSlice
from sampler.settings import SamplerSettings
from tests.support.mutations import twin
from tests.unit.service.toys import (
    FAST,
    PRIVACY,
    QUICK,
    SHARD,
    Broken,
    Grey,
    connected,
    eventually,
    our_threads,
    server,
)


def of_generate(
    folder: Path, name: str = "out", settings: SamplerSettings = FAST
) -> dict[tuple[int, int], Any]:
    """The first twelve images of each class, by (class, index), drawn by `generate`."""
    fixed = {"privacy": {}, "pool": PoolSettings(workers=0), "loader": pickle.loads}
    model, out = folder / "model.pickle", folder / name
    generate(model, out, per_class=12, seed=1, settings=settings, shard_size=SHARD, **fixed)
    images, labels = load_images(out)
    return {
        (label, index): pixels
        for label in range(3)
        for index, pixels in enumerate(images[labels == label])
    }


@twin(
    "the first images of a shard are sent, not the requested ones",
    "sampler.service.requests:_pieces",
    lambda old: lambda *args: [ShardSlice(p.shard, 0, p.stop - p.start) for p in old(*args)],
)
def test_images_are_those_of_generate_bit_for_bit(tmp_path: Path) -> None:
    changes = {"num_levels": 6, "step_size": 0.2}
    with connected(tmp_path) as client:
        truth = of_generate(tmp_path)
        changed = of_generate(tmp_path, "changed", SamplerSettings(**changes))  # type: ignore[arg-type]
        wanted = [(label, i) for label, n in ((0, 9), (2, 5)) for i in range(3, 3 + n)]

        def agree(truth: dict[tuple[int, int], Any], **how: Any) -> bool:
            images = list(client.sample({0: 9, 2: 5}, first=3, **how))
            assert sorted((i.label, i.index) for i in images) == wanted
            return all(np.array_equal(i.pixels, truth[i.label, i.index]) for i in images)

        assert agree(truth, seed=1) and agree(changed, seed=1, sampler=changes)
        assert not agree(truth, seed=2) and not agree(truth, seed=1, sampler=changes)


def test_the_header_says_what_the_images_are(tmp_path: Path) -> None:
    with connected(tmp_path) as client:
        described = client.describe()
        stream = client.sample({0: 2}, seed=5, sampler={"step_size": 0.3})
        header = stream.header
        assert len(list(stream)) == header.images == 2
        assert client.status(header.job).state == pb.JobStatus.DONE
    assert header.model == described.model and len(header.model) == 64
    assert (header.seed, header.sampler.num_levels, list(header.sampler.step_size)) == (5, 4, [0.3])
    for privacy in (header.privacy, described.privacy):
        assert {name: getattr(privacy, name) for name in PRIVACY} == PRIVACY
    assert (described.classes, described.channels, described.height) == (3, 1, 6)
    assert described.shard_size == SHARD


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 8, 5)])
def test_png_and_raw_are_the_same_pixels(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    with (
        server(tmp_path, Grey(shape), sampler=QUICK) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = SamplingStub(channel)
        _, png = stub.Sample(pb.SampleRequest(batches=[pb.Batch(count=1)]))
        _, raw = stub.Sample(pb.SampleRequest(batches=[pb.Batch(count=1)], format=pb.RAW))
    assert (raw.image.channels, raw.image.height, raw.image.width) == shape
    pixels = np.frombuffer(raw.image.data, np.uint8).reshape(shape)
    (tmp_path / "one.png").write_bytes(png.image.data)
    seen = np.asarray(Image.open(tmp_path / "one.png"))
    assert np.array_equal(seen, pixels[0] if shape[0] == 1 else np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize(
    ("counts", "more", "error", "says"),
    [
        ({0: 1}, {"seed": 2**63}, ConfigError, "No such request"),
        ({0: 1}, {"sampler": {"spice": 1}}, ConfigError, "No such request"),
        ({"cat": 1}, {}, ConfigError, "No such request"),
        ({0: 1}, {"sampler": {"num_levels": 1}}, ConfigError, "sampler.num_levels is 1"),
        ({0: 50}, {}, ConfigError, "draws 52 images, in whole shards"),
        ({0: 20}, {}, QuotaExceeded, "draws 20 images"),
    ],
)
def test_refusals(
    tmp_path: Path, counts: Any, more: Any, error: type[DppmError], says: str
) -> None:
    with connected(tmp_path, limits={"images_per_hour": 40}) as client:
        assert len(list(client.sample({0: 24}))) == 24
        with pytest.raises(error, match=says) as refusal:
            client.sample(counts, **more)
        assert refusal.value.hint
        with pytest.raises(UnknownJob, match="'none'"):
            client.status("none")


def test_failures_of_the_sampler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cause is in the server's log, and the caller is not told of it."""
    with connected(tmp_path, Broken((1, 4, 4)), sampler=QUICK) as client:
        stream = client.sample({1: 3})
        with pytest.raises(SamplerError, match="failed") as refusal:
            list(stream)
        assert "secret" not in str(refusal.value) and "a secret of the impl" in caplog.text
        assert client.status(stream.header.job).state == pb.JobStatus.FAILED
        with pytest.raises(SamplerError, match="not finite"):
            list(client.sample({2: 3}))
        assert len(list(client.sample({0: 3}))) == 3


def test_cancel_disconnect_and_deadline_stop_the_work(tmp_path: Path) -> None:
    """A shard takes a tenth of a second, the whole jobs would take ten."""
    model = Grey((1, 4, 4), pause=0.03)
    with (
        server(tmp_path, model, sampler=QUICK) as running,
        SamplingClient(running.address) as client,
    ):
        cancelled, left = client.sample({0: 400}), client.sample({1: 400})
        timed = client.sample({2: 400}, deadline=0.5)
        next(iter(cancelled))
        assert client.cancel(cancelled.header.job).state == pb.JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            list(cancelled)
        with pytest.raises(ServiceError, match="Deadline"):
            list(timed)
        left.cancel()
        with SamplingClient(running.address) as other:
            gone = other.sample({1: 400})
        for stream in (cancelled, left, timed, gone):
            job = stream.header.job
            assert eventually(lambda j=job: client.status(j).state == pb.JobStatus.CANCELLED)
            assert client.status(job).images_drawn < 100
        assert client.describe().jobs_running == 0
        drawn = sum(client.status(s.header.job).images_drawn for s in (cancelled, left, timed))
        time.sleep(0.2)
        assert drawn == sum(
            client.status(s.header.job).images_drawn for s in (cancelled, left, timed)
        )
    assert not our_threads()


def test_stopping_ends_streams_and_threads(tmp_path: Path) -> None:
    with server(tmp_path, Grey((1, 4, 4), pause=0.03), sampler=QUICK) as running:
        client = SamplingClient(running.address)
        stream = client.sample({0: 400})
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.8  # its jobs end at once, not after the grace of calls
    assert not our_threads()
    with pytest.raises((JobCancelled, ServerBusy)):
        list(stream)
    with pytest.raises(ServerBusy):
        client.describe()
    client.close()


def test_health_and_reflection(tmp_path: Path) -> None:
    with server(tmp_path) as running, grpc.insecure_channel(running.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "dppm.sampling.v1.Sampling"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refusal:
            health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        found = ProtoReflectionDescriptorDatabase(channel)
        assert "dppm.sampling.v1.Sampling" in found.get_services()
        file = found.FindFileContainingSymbol("dppm.sampling.v1.Sampling")
        methods = [m.name for m in file.service[0].method]
        assert methods == ["Describe", "Sample", "Status", "Cancel"]
