"""Running jobs: the next shard, the distance from the reader, and the end.

One thread per worker takes the next shard of the jobs in turn, so a large job cannot hold up small
ones. A job is skipped while ``ahead`` shards of it are being drawn or wait to be read: this
back-pressure bounds the memory of a job whose client reads slowly or not at all.
"""

from __future__ import annotations

import enum
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from dppm_model.errors import DppmError, JobCancelled, SamplerError, ServerBusy, UnknownJob
from sampler.pool import Draw
from sampler.service.quota import Quota
from sampler.service.requests import Limits, SampleRequest, ShardSlice

_REMEMBERED = 1000  # ended jobs whose status can still be asked for
_log = logging.getLogger(__name__)


class JobState(enum.Enum):
    """The state of a job; the names are those of ``JobStatus.State``."""

    RUNNING = enum.auto()
    DONE = enum.auto()
    CANCELLED = enum.auto()
    FAILED = enum.auto()


class Job:
    """A running request. Its fields belong to the scheduler, which changes them under a lock."""

    def __init__(
        self, client: str, request: SampleRequest, on_cancel: Callable[[], object]
    ) -> None:
        self.id = secrets.token_hex(8)  # not to be guessed by other clients
        self.client, self.on_cancel = client, on_cancel
        self.images, self.cost, self.shards = request.images, request.cost, request.shards
        self.request = replace(request, batches=())  # in todo, so that an ended job is small
        self.state = JobState.RUNNING
        self.error: DppmError | None = None
        self.todo, self.left = request.pieces(), self.shards  # not yet begun
        self.ready: deque[tuple[ShardSlice, bytes]] = deque()
        self.ahead = 0  # shards that are being drawn, wait to be read, or are being read
        self.drawn = self.sent = 0  # images; drawn: of shards at least begun
        self.begun = time.monotonic()
        self.ended: float | None = None
        self.attached = True  # its stream is open
        self.waiting = False  # its stream waits for us, not for its client
        self.read = self.begun  # when its client last took something

    def count_sent(self) -> None:
        """Note that one more image was handed over; only the job's own stream calls this."""
        self.sent += 1
        self.read = time.monotonic()


class JobScheduler:
    """Accepts requests, has their shards drawn, and hands these out.

    ``crew`` has one function for each worker, as `sampler.pool.crew` makes them; ``limits`` are the
    quotas and the limit of jobs. ``ahead`` shards of a job may be drawn and not yet read, or under
    way; by default one more than there are workers, so that a single job keeps all of them busy.
    """

    def __init__(self, crew: Sequence[Draw], limits: Limits, ahead: int | None = None) -> None:
        self._limits = limits
        self._ahead = len(crew) + 1 if ahead is None else ahead
        self._quota = Quota(limits.images_per_hour, limits.jobs_per_client)
        self._change = threading.Condition()
        self._jobs: dict[str, Job] = {}  # running, and then the last ended ones, oldest first
        self._turn: deque[Job] = deque()  # running jobs with shards still to be drawn
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(draw,), name=f"draw-{i}")
            for i, draw in enumerate(crew)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, client: str, request: SampleRequest, on_cancel: Callable[[], object]) -> Job:
        """Accept a request, to be read by `drawn`.

        ``on_cancel`` is called if anyone but its reader ends the job: the reader may be blocked and
        not notice.

        Raises
        ------
        ServerBusy
            If too many jobs are running, or the scheduler is closed.
        QuotaExceeded, ConfigError
            See `sampler.service.quota.Quota.enter`.
        """
        with self._change:
            running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
            if self._closed or len(running) >= self._limits.jobs:
                raise ServerBusy(
                    "The server is about to stop."
                    if self._closed
                    else f"{len(running)} jobs are running, as many as the server takes.",
                    "Ask again in a while.",
                )
            job = Job(client, request, on_cancel)
            self._quota.enter(client, job.cost)
            self._jobs[job.id] = job
            self._turn.append(job)
            self._change.notify_all()
        return job

    def drawn(self, job: Job) -> Iterator[tuple[ShardSlice, bytes]]:
        """Yield a job's shards as they are made; asking for the next one makes room for more.

        Raises
        ------
        DppmError
            The refusal of a worker; `JobCancelled` if the job was ended.
        """
        for _ in range(job.shards):
            with self._change:
                job.waiting = True
                self._change.wait_for(lambda: job.ready or job.state is not JobState.RUNNING)
                job.waiting, job.read = False, time.monotonic()
                if job.error is not None:
                    raise job.error
                if job.state is not JobState.RUNNING:
                    raise JobCancelled("The job was cancelled.", "Submit it again if need be.")
                one = job.ready.popleft()
            yield one
            with self._change:
                job.ahead -= 1
                self._change.notify_all()

    def find(self, client: str, name: str) -> Job:
        """Return a client's job.

        Raises UnknownJob if the client has no such job; other clients' jobs stay secret.
        """
        with self._change:
            job = self._jobs.get(name)
        if job is None or job.client != client:
            raise UnknownJob(
                f"There is no job {name!r} of this client.", "Take the job of the stream's header."
            )
        return job

    def quota_of(self, client: str) -> tuple[int, int]:
        """Return (images left, jobs running)."""
        with self._change:
            return self._quota.of(client)

    def finish(self, job: Job) -> None:
        """End a job whose stream is over, complete or not."""
        with self._change:
            whole = job.sent == job.images
            self._end(job, JobState.DONE if whole else JobState.CANCELLED)

    def leave(self, job: Job) -> None:
        """Close an ended job's stream: now its client may have another job.

        A client that reads nothing more has its job ended, but its stream, and what was written
        into that, stays until it leaves.
        """
        with self._change:
            job.attached = False
            self._quota.leave(job.client)

    def cancel(self, job: Job) -> None:
        """End a job early: no shard is begun, and waiting ones are dropped."""
        with self._change:
            cancelled = self._end(job, JobState.CANCELLED)
        if cancelled:
            job.on_cancel()

    def cancel_stalled(self) -> None:
        """Close streams whose clients have not read for too long, though images were ready."""
        oldest = time.monotonic() - self._limits.stall_seconds
        with self._change:
            stalled = [
                job
                for job in self._jobs.values()
                if job.attached and not job.waiting and job.read < oldest
            ]
            for job in stalled:
                self._end(job, JobState.CANCELLED)
        for job in stalled:
            job.on_cancel()

    def close(self) -> None:
        """End all jobs, and wait for the shards that are being drawn."""
        with self._change:
            self._closed = True
            running = [job for job in self._jobs.values() if job.state is JobState.RUNNING]
            self._change.notify_all()
        for job in running:
            self.cancel(job)
        for thread in self._threads:
            thread.join()

    def _end(self, job: Job, state: JobState, error: DppmError | None = None) -> bool:
        if job.state is not JobState.RUNNING:
            return False
        job.state, job.error, job.ended = state, error, time.monotonic()
        if job in self._turn:
            self._turn.remove(job)
        job.todo, job.left = iter(()), 0
        job.ready.clear()
        self._quota.give_back(job.client, job.cost - job.drawn)
        self._jobs[job.id] = self._jobs.pop(job.id)  # behind those that ended before
        ended = [name for name, one in self._jobs.items() if one.state is not JobState.RUNNING]
        for name in ended[:-_REMEMBERED]:
            del self._jobs[name]
        self._change.notify_all()
        return True

    def _wants(self, job: Job) -> bool:
        return job.left > 0 and job.ahead < self._ahead

    def _take(self) -> tuple[Job, ShardSlice]:
        """Take a shard of the first job in line that wants one; the job moves to the end."""
        while not self._wants(self._turn[0]):
            self._turn.rotate(-1)
        job = self._turn.popleft()
        piece = next(job.todo)
        job.left -= 1
        if job.left:
            self._turn.append(job)
        job.ahead += 1
        job.drawn += piece.shard.count
        return job, piece

    def _work(self, draw: Draw) -> None:
        """Draw shard after shard: the life of one worker's thread."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or any(map(self._wants, self._turn)))
                if self._closed:
                    return
                job, piece = self._take()
            try:
                content = draw(piece.shard, job.request.seed, job.request.settings)
            except Exception as error:  # any error ends the job, not the worker
                if not isinstance(error, DppmError):
                    _log.exception("%s of job %s failed", piece.shard.name, job.id)
                    error = SamplerError(
                        f"{piece.shard.name} failed ({type(error).__name__}).",
                        "Ask who runs the server; its log has the reason.",
                    )
                with self._change:
                    self._end(job, JobState.FAILED, error)
                continue
            with self._change:
                if job.state is JobState.RUNNING:
                    job.ready.append((piece, content))
                    self._change.notify_all()
