"""Answers to the calls of `sampling.proto`, behind `sampler.service.gate`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any

from sampler.images import decode_shard
from sampler.service import sampling_pb2 as pb
from sampler.service.desk import Desk, Job
from sampler.service.gate import Call
from sampler.service.messages import image_message, privacy_message, sampler_message
from sampler.service.orders import Limits, Served, read_order


class SamplingService:
    """The servicer: coroutines on the thread of calls, which does nothing that takes time.

    Parameters
    ----------
    served, limits
        What it offers, and how much of it.
    desk
        Runs the jobs.
    threads
        For what takes time: a thread for each job that may run.
    """

    def __init__(self, served: Served, limits: Limits, desk: Desk, threads: Executor) -> None:
        self._served, self._limits, self._desk, self._threads = served, limits, desk, threads

    async def Describe(self, request: pb.DescribeRequest, call: Call) -> pb.Description:
        """See `sampling.proto`."""
        served, limits = self._served, self._limits
        channels, height, width = served.shape
        left, jobs = self._desk.quota_of(call.client)
        return pb.Description(
            model=served.model,
            classes=served.classes,
            channels=channels,
            height=height,
            width=width,
            privacy=privacy_message(served.privacy),
            shard_size=served.shard_size,
            sampler=sampler_message(served.settings),
            limits=pb.Limits(
                images_per_request=limits.images_per_request,
                images_per_hour=limits.images_per_hour,
                jobs_per_client=limits.jobs_per_client,
                evaluations=limits.evaluations,
                stall_seconds=limits.stall_seconds,
            ),
            images_left=left,
            jobs_running=jobs,
        )

    async def Sample(self, request: pb.SampleRequest, call: Call) -> AsyncIterator[pb.SampleReply]:
        """See `sampling.proto`."""
        order = read_order(request, self._served, self._limits)
        job = self._desk.submit(call.client, order, call.hang_up)
        call.admit(lambda: self._desk.leave(job))
        try:
            header = pb.Header(
                job=job.id,
                model=self._served.model,
                privacy=privacy_message(self._served.privacy),
                sampler=sampler_message(order.settings),
                seed=order.seed,
                images=job.images,
            )
            yield pb.SampleReply(header=header)
            async for image in self._images(job):
                yield pb.SampleReply(image=image)  # comes back when there is room to write more
                job.count_sent()
        finally:  # also if the call was ended, is past its deadline, or has lost its client
            self._desk.finish(job)

    async def _images(self, job: Job) -> AsyncIterator[pb.Image]:
        shards = self._desk.drawn(job)
        while (one := await self._aside(next, shards, None)) is not None:
            piece, content = one
            images = (await self._aside(decode_shard, content))[0]
            for row in range(piece.start, piece.stop):
                index, form = piece.shard.first + row, job.order.format
                yield await self._aside(image_message, piece.shard.label, index, images[row], form)

    async def _aside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)

    async def Status(self, request: pb.StatusRequest, call: Call) -> pb.JobStatus:
        """See `sampling.proto`."""
        return _status(self._desk.find(call.client, request.job))

    async def Cancel(self, request: pb.CancelRequest, call: Call) -> pb.JobStatus:
        """See `sampling.proto`."""
        job = self._desk.find(call.client, request.job)
        self._desk.cancel(job)
        return _status(job)


def _status(job: Job) -> pb.JobStatus:
    end = time.monotonic() if job.ended is None else job.ended
    return pb.JobStatus(
        job=job.id,
        state=pb.JobStatus.State.Value(job.state.name),
        images=job.images,
        images_sent=job.sent,
        images_drawn=job.drawn,
        seconds=end - job.begun,
        error="" if job.error is None else str(job.error),
    )
