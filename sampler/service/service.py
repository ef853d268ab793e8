"""Answers to the calls of `sampling.proto`, and the gate before them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from dppm_model import errors
from dppm_model.errors import BadToken, ConfigError, DppmError
from sampler.images import decode_shard
from sampler.service import sampling_pb2 as pb
from sampler.service.access import Access
from sampler.service.desk import Desk, Job
from sampler.service.messages import FIX, image_message, privacy_message, sampler_message
from sampler.service.orders import Limits, Served, read_order

CODES = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BadToken: grpc.StatusCode.UNAUTHENTICATED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ServerBusy: grpc.StatusCode.UNAVAILABLE,
    errors.UnknownJob: grpc.StatusCode.NOT_FOUND,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.SamplerError: grpc.StatusCode.INTERNAL,
}
NAME: str = pb.DESCRIPTOR.services_by_name["Sampling"].full_name


def _abort(context: Any, error: DppmError) -> None:
    context.abort(
        CODES.get(type(error), grpc.StatusCode.INTERNAL), f"{error.cause}{FIX}{error.cure}"
    )


@contextmanager
def _refusing(context: Any) -> Iterator[None]:
    """Turn a refusal into a status code with its cause and cure."""
    try:
        yield
    except DppmError as error:
        _abort(context, error)


class SamplingService:
    """The servicer.

    Parameters
    ----------
    served, limits
        What it offers, and how much of it.
    access
        Tells clients apart.
    desk
        Runs the jobs.
    """

    def __init__(self, served: Served, limits: Limits, access: Access, desk: Desk) -> None:
        self._served, self._limits, self._access, self._desk = served, limits, access, desk

    def _client(self, context: Any) -> str:
        return self._access.client(context.invocation_metadata(), context.peer())

    def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.Description:
        """See `sampling.proto`."""
        served, limits = self._served, self._limits
        channels, height, width = served.shape
        left, jobs = self._desk.quota_of(self._client(context))
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

    def Sample(self, request: pb.SampleRequest, context: Any) -> Iterator[pb.SampleReply]:
        """See `sampling.proto`. gRPC blocks this thread while the client's window is full."""
        with _refusing(context):
            order = read_order(request, self._served, self._limits)
            job = self._desk.submit(self._client(context), order, context.cancel)
            # Called when the call is over for whatever reason: cancel, deadline, a lost connection.
            if not context.add_callback(lambda: self._desk.finish(job)):
                self._desk.finish(job)
            header = pb.Header(
                job=job.id,
                model=self._served.model,
                privacy=privacy_message(self._served.privacy),
                sampler=sampler_message(order.settings),
                seed=order.seed,
                images=job.images,
            )
            yield pb.SampleReply(header=header)
            yield from self._images(job)
            self._desk.finish(job)

    def _images(self, job: Job) -> Iterator[pb.SampleReply]:
        for piece, content in self._desk.drawn(job):
            images = decode_shard(content)[0]
            for row in range(piece.start, piece.stop):
                index = piece.shard.first + row
                image = image_message(piece.shard.label, index, images[row], job.order.format)
                yield pb.SampleReply(image=image)
                job.count_sent()

    def Status(self, request: pb.StatusRequest, context: Any) -> pb.JobStatus:
        """See `sampling.proto`."""
        with _refusing(context):
            return _status(self._desk.find(self._client(context), request.job))

    def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.JobStatus:
        """See `sampling.proto`."""
        with _refusing(context):
            job = self._desk.find(self._client(context), request.job)
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


class Gate:
    """A server interceptor: no call passes without a token, and no bytes that are no message.

    Health checks pass without a token, as load balancers send none; they say nothing of a run.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(self, proceed: Callable[[Any], Any], call: Any) -> Any:
        """Return the handler of a call, or one that refuses it."""
        if not call.method.startswith("/grpc.health."):
            try:
                self._access.client(call.invocation_metadata, peer="")
            except BadToken as error:
                return _refusal(error)
        handler = proceed(call)
        if handler is None or not call.method.startswith(f"/{NAME}/"):
            return handler
        return _readable(handler, call.method)


def _refusal(error: DppmError) -> Any:
    """Return a handler that refuses at once, whatever the method.

    It is one of streams because any other holds a thread until the request's message has come, and
    who has no token shall hold none.
    """
    return grpc.stream_unary_rpc_method_handler(lambda _requests, context: _abort(context, error))


def _readable(handler: Any, method: str) -> Any:
    """Wrap a handler so that undecodable bytes are the client's fault; gRPC calls them INTERNAL."""
    stream = handler.response_streaming
    behaviour = handler.unary_stream if stream else handler.unary_unary
    make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler

    def decode(content: bytes) -> Any:
        try:
            return handler.request_deserializer(content)
        except Exception:  # protobuf's own class of errors differs between its implementations
            return ConfigError(
                f"The request of {method} is no such message.",
                "See sampler/service/sampling.proto.",
            )

    def answer(request: Any, context: Any) -> Any:
        if isinstance(request, ConfigError):
            _abort(context, request)
        return behaviour(request, context)

    return make(answer, decode, handler.response_serializer)
