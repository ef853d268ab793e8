"""The scheduler draws only so far ahead, takes turns, stops, and keeps its workers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dppm_model.errors import JobCancelled, QuotaExceeded, ServerBusy
from sampler.images import Shard
from sampler.service import sampling_pb2 as pb
from sampler.service.requests import Limits, SampleRequest
from sampler.service.scheduler import Job, JobScheduler, JobState
from sampler.settings import SamplerSettings
from tests.unit.service.toys import eventually, our_threads

SETTINGS = SamplerSettings()


def request(shards: int, label: int = 0) -> SampleRequest:
    return SampleRequest((pb.Batch(label=label, count=10 * shards),), 10, 0, SETTINGS, pb.RAW)


class Recorder:
    """A worker that notes what it drew, and waits for ``go`` before each shard if there is one."""

    def __init__(self, go: threading.Semaphore | None = None) -> None:
        self.drawn: list[Shard] = []
        self._go = go

    def __call__(self, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
        if self._go is not None:
            self._go.acquire()
        self.drawn.append(shard)
        return shard.name.encode()


@contextmanager
def scheduler(*crew: Recorder, ahead: int | None = None, **limits: int) -> Iterator[JobScheduler]:
    made = JobScheduler(crew, Limits(**limits), ahead)
    try:
        yield made
    finally:
        for worker in crew:
            if worker._go is not None:
                worker._go.release(10_000)
        made.close()
        assert not our_threads()


def submit(
    scheduler: JobScheduler,
    request: SampleRequest,
    client: str = "a",
    on_cancel: Callable[[], Any] = lambda: None,
) -> Job:
    return scheduler.submit(client, request, on_cancel)


def read(scheduler: JobScheduler, job: Job) -> list[bytes]:
    contents = []
    try:
        for piece, content in scheduler.drawn(job):
            contents.append(content)
            for _ in range(piece.start, piece.stop):
                job.count_sent()
        scheduler.finish(job)
    finally:
        scheduler.leave(job)
    return contents


@pytest.mark.parametrize(("ahead", "drawn"), [(None, 4), (10**9, 50)])
def test_a_slow_reader_holds_the_work_up(ahead: int | None, drawn: int) -> None:
    """Of three shards that are asked for, two are read; one is in hand and one is ahead."""
    worker = Recorder()
    with scheduler(worker, ahead=ahead) as one:
        reader = one.drawn(submit(one, request(50)))
        for _ in range(3):
            next(reader)
        eventually(lambda: len(worker.drawn) >= 50, 0.3)
        assert len(worker.drawn) == drawn


def test_a_small_job_does_not_wait_for_a_large_one() -> None:
    go = threading.Semaphore(0)
    worker = Recorder(go)
    with scheduler(worker, ahead=10**9) as one:
        submit(one, request(50))
        small = submit(one, request(2, label=1))
        go.release(6)
        assert read(one, small) == [b"class-001-000000.npz", b"class-001-000010.npz"]
        assert sum(s.label == 0 for s in worker.drawn) <= 4


def test_all_workers_draw_for_one_job() -> None:
    """Each of three workers waits for the other two, so that one alone would never finish."""
    together = threading.Barrier(3, timeout=5)

    class Meeting(Recorder):
        def __call__(self, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
            together.wait()
            return super().__call__(shard, seed, settings)

    with scheduler(Meeting(), Meeting(), Meeting()) as one:
        job = submit(one, request(9))
        assert sorted(read(one, job)) == sorted(p.shard.name.encode() for p in request(9).pieces())
        assert (job.state, job.sent, job.drawn) == (JobState.DONE, 90, 90)


def test_a_cancelled_job_stops_at_the_next_shard_and_wakes_its_reader() -> None:
    go, hung_up = threading.Semaphore(1), []
    worker = Recorder(go)
    with scheduler(worker) as one:
        job = submit(one, request(50), on_cancel=lambda: hung_up.append(1))
        reader = one.drawn(job)
        next(reader)
        threading.Timer(0.05, one.cancel, (job,)).start()
        with pytest.raises(JobCancelled):
            next(reader)
        one.cancel(job)  # does nothing
        assert hung_up == [1]
        assert one.quota_of("a")[0] >= 100_000 - 20  # images not begun are given back
        go.release(50)
        assert read(one, submit(one, request(1))) == [b"class-000-000000.npz"]
        assert len(worker.drawn) <= 3  # the first, the one under way, and the new job's
        one.finish(job)
        assert one.quota_of("a")[1] == 1  # its stream is still open
        one.leave(job)
        assert one.quota_of("a")[1] == 0
        assert job.state is JobState.CANCELLED
        assert not (job.left or job.ready or job.request.batches)  # little is remembered


def test_unread_jobs_are_cancelled_after_a_while_and_waiting_ones_are_not() -> None:
    go, hung_up = threading.Semaphore(2), []
    with scheduler(Recorder(go), stall_seconds=1) as one:
        stalled = submit(one, request(1), on_cancel=lambda: hung_up.append("stalled"))
        next(one.drawn(stalled))  # and then nothing is read
        waiting = submit(one, request(50), on_cancel=lambda: hung_up.append("waiting"))

        def read_to_the_end() -> None:
            with pytest.raises(JobCancelled):
                read(one, waiting)

        thread = threading.Thread(target=read_to_the_end)
        thread.start()
        assert eventually(lambda: waiting.waiting)
        one.cancel_stalled()
        assert not hung_up
        stalled.read -= 2
        waiting.read -= 2
        one.cancel_stalled()
        assert hung_up == ["stalled"]
        one.cancel(waiting)
        thread.join()


def test_limits_of_jobs() -> None:
    with scheduler(Recorder(), jobs=2, jobs_per_client=1) as one:
        first = submit(one, request(1))
        with pytest.raises(QuotaExceeded):
            submit(one, request(1))
        submit(one, request(1), client="b")
        with pytest.raises(ServerBusy, match="2 jobs are running"):
            submit(one, request(1), client="c")
        one.cancel(first)
        submit(one, request(1), client="c")


def test_only_the_last_ended_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampler.service.scheduler._REMEMBERED", 3)
    with scheduler(Recorder()) as one:
        jobs = [submit(one, request(1)) for _ in range(6)]
        for job in jobs:
            read(one, job)
        assert list(one._jobs) == [job.id for job in jobs[3:]]


def test_many_jobs_at_once_all_finish() -> None:
    """A lost wake-up would leave a reader or a worker asleep for ever."""
    with scheduler(Recorder(), Recorder(), jobs=100, jobs_per_client=100) as one:
        jobs = [submit(one, request(1 + i % 7)) for i in range(60)]
        threads = [threading.Thread(target=read, args=(one, job)) for job in jobs]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
        assert {job.state for job in jobs} == {JobState.DONE}
        assert one.quota_of("a")[1] == 0
