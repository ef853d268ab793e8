"""Answers to the calls of `sampling.proto`, and to health checks, behind the interceptor."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import Executor
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from sampler.images import decode_shard, to_image
from sampler.service import sampling_pb2 as pb
from sampler.service.interceptor import Call
from sampler.service.requests import Limits, ModelInfo, read_request
from sampler.service.scheduler import Job, JobScheduler
from sampler.settings import SamplerSettings

HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Response = health_pb2.HealthCheckResponse


class SamplingService:
    """The servicer: coroutines on the thread of calls, which never does slow work.

    ``threads`` are for slow work, a thread for each job that may run.
    """

    def __init__(
        self, model: ModelInfo, limits: Limits, scheduler: JobScheduler, threads: Executor
    ) -> None:
        self._model, self._limits = model, limits
        self._scheduler, self._threads = scheduler, threads

    async def Describe(self, request: pb.DescribeRequest, call: Call) -> pb.Description:
        """See `sampling.proto`."""
        model, limits = self._model, self._limits
        channels, height, width = model.shape
        left, jobs = self._scheduler.quota_of(call.client)
        return pb.Description(
            model=model.model,
            classes=model.classes,
            channels=channels,
            height=height,
            width=width,
            privacy=privacy_message(model.privacy),
            shard_size=model.shard_size,
            sampler=sampler_message(model.settings),
            limits=pb.Limits(
                **{f.name: getattr(limits, f.name) for f in pb.Limits.DESCRIPTOR.fields}
            ),
            images_left=left,
            jobs_running=jobs,
        )

    async def Sample(self, request: pb.SampleRequest, call: Call) -> AsyncIterator[pb.SampleReply]:
        """See `sampling.proto`."""
        asked = read_request(request, self._model, self._limits)
        job = self._scheduler.submit(call.client, asked, call.cancel)
        call.admit(lambda: self._scheduler.leave(job))
        try:
            header = pb.Header(
                job=job.id,
                model=self._model.model,
                privacy=privacy_message(self._model.privacy),
                sampler=sampler_message(asked.settings),
                seed=asked.seed,
                images=job.images,
            )
            yield pb.SampleReply(header=header)
            async for image in self._images(job):
                yield pb.SampleReply(image=image)  # returns when there is room for more
                job.count_sent()
        finally:  # also if the call was ended, is past its deadline, or has lost its client
            self._scheduler.finish(job)

    async def _images(self, job: Job) -> AsyncIterator[pb.Image]:
        shards = self._scheduler.drawn(job)
        while (one := await self._aside(next, shards, None)) is not None:
            piece, content = one
            images = (await self._aside(decode_shard, content))[0]
            for row in range(piece.start, piece.stop):
                index, form = piece.shard.first + row, job.request.format
                yield await self._aside(image_message, piece.shard.label, index, images[row], form)

    async def _aside(self, work: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)

    async def Status(self, request: pb.StatusRequest, call: Call) -> pb.JobStatus:
        """See `sampling.proto`."""
        return _status(self._scheduler.find(call.client, request.job))

    async def Cancel(self, request: pb.CancelRequest, call: Call) -> pb.JobStatus:
        """See `sampling.proto`."""
        job = self._scheduler.find(call.client, request.job)
        self._scheduler.cancel(job)
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


def sampler_message(settings: SamplerSettings) -> pb.Sampler:
    """Return a message with every field set."""
    values = settings.to_dict()
    step = values.pop("step_size")
    return pb.Sampler(**values, step_size=step if isinstance(step, tuple) else [step])


def privacy_message(privacy: Mapping[str, Any]) -> pb.Privacy:
    """Return the run's promise; an epsilon of None, no protection, is infinite (unset is 0)."""
    found: dict[str, Any] = {}
    for field in pb.Privacy.DESCRIPTOR.fields:
        value = privacy[field.name]
        found[field.name] = math.inf if value is None else value
    return pb.Privacy(**found)


def image_message(label: int, index: int, pixels: NDArray[np.uint8], form: pb.Format) -> pb.Image:
    """Return one image; ``pixels`` is (C, H, W)."""
    channels, height, width = pixels.shape
    if form == pb.RAW:
        data = pixels.tobytes()
    else:
        buffer = io.BytesIO()
        to_image(pixels).save(buffer, "PNG")
        data = buffer.getvalue()
    size = {"channels": channels, "height": height, "width": width}
    return pb.Image(label=label, index=index, format=form, data=data, **size)


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Health checks (grpc.health.v1): the service is up for as long as its server answers.

    ``names`` are the services that are served.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = {"", *names}

    async def Check(self, request: Any, call: Call) -> Any:
        """Say that a service is up, or unknown."""
        if request.service not in self._names:
            call.end(grpc.StatusCode.NOT_FOUND, "There is no such service here.")
        return _Response(status=_Response.SERVING)

    async def Watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
        """Say so once: nothing changes until the server stops, which ends the call."""
        known = request.service in self._names
        yield _Response(status=_Response.SERVING if known else _Response.SERVICE_UNKNOWN)
        await call.ended.wait()
