"""Eight clients at once, three of them a nuisance; and a reader who does not read."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from dppm_model.errors import JobCancelled
from sampler.service import sampling_pb2
from sampler.service.client import Sampled, SamplingClient
from tests.unit.service.toys import LARGE, QUICK, Grey, eventually, our_threads, server

SHARDS = 25  # of four images


def read_all(client: SamplingClient, label: int) -> list[Sampled]:
    return list(client.sample({label: 4 * SHARDS}, seed=label))


def read_slowly(client: SamplingClient, label: int) -> list[Sampled]:
    images = []
    for image in client.sample({label: 4 * SHARDS}, seed=label):
        images.append(image)
        time.sleep(0.01)
    return images


def disconnect(client: SamplingClient, label: int) -> list[Sampled]:
    stream = iter(client.sample({label: 4 * SHARDS}, seed=label))
    images = [next(stream) for _ in range(5)]
    client.close()
    return images


def talk_nonsense(client: SamplingClient, label: int) -> list[Sampled]:
    for content in (b"\xff" * 50, b"", b"\x0a\x02\x08\x63"):  # no message, no batch, class 99
        with pytest.raises(grpc.RpcError) as refusal:
            list(client._channel.unary_stream("/dppm.sampling.v1.Sampling/Sample")(content))
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return []


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_eight_clients_of_whom_three_are_a_nuisance(tmp_path: Path) -> None:
    results: dict[int, list[Sampled]] = {}
    for _ in range(2):  # gRPC keeps some files open
        with (
            server(tmp_path, Grey(), sampler=QUICK) as running,
            SamplingClient(running.address) as client,
        ):
            read_all(client, 0)
    files = open_files()

    def run(number: int, act: Callable[[SamplingClient, int], list[Sampled]]) -> None:
        with SamplingClient(running.address) as client:
            results[number] = act(client, number % 3)

    acts = [read_slowly, disconnect, talk_nonsense, *[read_all] * 5]
    with server(tmp_path, Grey(), sampler=QUICK) as running:
        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        with SamplingClient(running.address) as client:
            assert eventually(lambda: client.describe().jobs_running == 0)
        jobs = running._scheduler._jobs.values()
        assert not any(job.attached or job.ready for job in jobs)  # nothing is kept of the images
    assert not our_threads()
    assert eventually(lambda: open_files() <= files)
    assert sorted(results) == list(range(8))  # nobody failed, nobody hangs
    assert [len(results[i]) for i in range(8)] == [4 * SHARDS, 5, 0, *[4 * SHARDS] * 5]
    for one, same in ((0, 3), (4, 7)):  # of the same class and seed
        assert {i.index for i in results[one]} == set(range(4 * SHARDS))
        for a, b in zip(results[one], results[same], strict=True):
            np.testing.assert_array_equal(a.pixels, b.pixels)


def test_a_client_that_reads_one_image_has_few_drawn(tmp_path: Path) -> None:
    with (
        server(tmp_path, LARGE, sampler=QUICK) as running,
        SamplingClient(running.address) as client,
    ):
        stream = client.sample({0: 4 * SHARDS})
        next(iter(stream))
        time.sleep(1.5)
        assert client.status(stream.header.job).images_drawn <= 4 * SHARDS / 2
        assert client.cancel(stream.header.job).state == sampling_pb2.JobStatus.CANCELLED
        with pytest.raises(JobCancelled):  # after what was written before
            list(stream)
        jobs = running._scheduler._jobs
        assert eventually(lambda: not any(job.attached for job in jobs.values()))
