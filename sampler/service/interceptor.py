"""Checks before every call: the caller, the number of calls, and a timely and valid message.

Calls are coroutines of one thread, so a waiting call costs a little memory and no thread. A call
without a timely message is ended; if there are too many calls, so is the oldest call of the client
that has the most. So the calls of one client, or of anyone without a token, do not crowd out
others. A `Sample` no longer counts once the scheduler takes its job: from then on, quotas bound it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import grpc

from dppm_model.errors import ConfigError, DppmError, JobCancelled
from sampler.service.access import Access, host_of
from sampler.service.methods import NAME
from sampler.service.requests import Fields, check_request
from sampler.service.status import CODES, FIX, refusal_text

MESSAGE_SECONDS = 5.0  # that a call's next message may take
PER_CLIENT, IN_ALL = 64, 512  # open calls
_HEALTH = "/grpc.health."
_log = logging.getLogger(__name__)


class Call:
    """An incoming call.

    ``client`` is the caller, as `Access.client` names it; ``ended`` is set once the call has its
    status, whether from here or from gRPC.
    """

    def __init__(self, client: str, context: Any, open_calls: OpenCalls) -> None:
        self.client, self.ended = client, asyncio.Event()
        self._context, self._open_calls = context, open_calls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()  # what gRPC still does for it
        self._writing: asyncio.Task[None] | None = None
        self._gone: list[Callable[[], object]] = []

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """Set its status, unless it has one, even while its handler waits to read or write."""
        if not self.ended.is_set():
            self.ended.set()
            self._open_calls.leave(self)
            self._begin(self._abort(code, text))

    def cancel(self) -> None:
        """End it as cancelled; from any thread."""
        text = refusal_text(JobCancelled("The job was cancelled.", "Submit it again."))
        with suppress(RuntimeError):  # the loop has stopped, and its calls with it
            self._loop.call_soon_threadsafe(self.end, grpc.StatusCode.CANCELLED, text)

    def admit(self, gone: Callable[[], object]) -> None:
        """Stop counting it, since something else bounds it, and call ``gone`` when it is gone.

        It is gone when its client has read everything or left, not when it has ended.
        """
        self._open_calls.leave(self)
        self._gone.append(gone)

    async def write(self, content: bytes) -> None:
        """Send a message; return when there is room for another, or the call has ended."""
        self._writing = self._begin(self._context.write(content))
        ended = self._loop.create_task(self.ended.wait())
        try:
            await asyncio.wait({self._writing, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def close(self) -> None:
        """Wait until it is gone, after its handler has let go of everything."""
        self._open_calls.leave(self)
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for call_back in self._gone:
                call_back()

    async def _abort(self, code: grpc.StatusCode, text: str) -> None:
        if self._writing is not None:  # the status follows it, and headers are sent once
            await asyncio.wait({self._writing})
        await self._context.abort(code, text)

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run a gRPC operation, which must not be cancelled: gRPC's core writes into it."""

        async def quietly() -> None:
            # Raised by a successful abort, by a write after the end, and by both without a client.
            with suppress(grpc.aio.AbortError, grpc.aio.BaseError, grpc.aio.UsageError):
                await work

        task = self._loop.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class OpenCalls:
    """The calls that nothing else bounds, oldest first.

    One more than ``per_client`` or ``in_all`` ends the oldest call of its client, or of the client
    that has the most.
    """

    def __init__(self, per_client: int = PER_CLIENT, in_all: int = IN_ALL) -> None:
        self._per_client, self._in_all = per_client, in_all
        self._calls: dict[Call, None] = {}
        self._of: Counter[str] = Counter()

    def enter(self, call: Call) -> None:
        """Take a call in, and end another if there are too many."""
        if self._of[call.client] >= self._per_client:
            self._end_one_of(call.client)
        elif len(self._calls) >= self._in_all:
            self._end_one_of(self._of.most_common(1)[0][0])
        self._calls[call] = None
        self._of[call.client] += 1

    def leave(self, call: Call) -> None:
        """Forget a call, if it is there."""
        if call in self._calls:
            del self._calls[call]
            self._of[call.client] -= 1
            self._of += Counter()  # drops clients without any

    def close(self) -> None:
        """End all calls."""
        for call in list(self._calls):
            call.end(grpc.StatusCode.UNAVAILABLE, "The server is about to stop.")

    def _end_one_of(self, client: str) -> None:
        oldest = next(call for call in self._calls if call.client == client)
        oldest.end(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"There are too many calls of this client.{FIX}End one before the next.",
        )


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without a token, and messages that are invalid or out of bounds.

    Health checks need no token, as load balancers send none; they reveal nothing about a run, and
    are counted separately, by host.

    For ``bounds`` see `sampler.service.requests`.
    """

    def __init__(self, access: Access, bounds: Mapping[str, Fields]) -> None:
        self._access, self._bounds = access, bounds
        self._calls, self._health_calls = OpenCalls(), OpenCalls()

    def close(self) -> None:
        """End the open calls: the server stops."""
        self._calls.close()
        self._health_calls.close()

    async def intercept_service(
        self, proceed: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Return what answers a call: its handler, behind the checks.

        It is always a handler of streams: for any other, gRPC would wait for the message before it
        calls the handler.
        """
        handler, method = await proceed(details), str(details.method)

        async def answer(_requests: object, context: Any) -> None:
            await self._answer(handler, method, context)

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _answer(self, handler: Any, method: str, context: Any) -> None:
        health = method.startswith(_HEALTH)
        open_calls = self._health_calls if health else self._calls
        call = Call(host_of(context.peer()), context, open_calls)
        try:
            if not health:
                call.client = self._access.client(context.invocation_metadata(), context.peer())
            if handler is None:
                call.end(grpc.StatusCode.UNIMPLEMENTED, f"There is no method {method[:80]}.")
                return
            open_calls.enter(call)
            async with (
                aclosing(self._requests(handler, method, call, context)) as requests,
                aclosing(_replies(handler, requests, call)) as replies,
            ):
                async for reply in replies:
                    if call.ended.is_set():
                        break
                    await call.write(handler.response_serializer(reply))
        except DppmError as error:
            call.end(CODES.get(type(error), grpc.StatusCode.INTERNAL), refusal_text(error))
        except grpc.aio.AbortError:
            pass  # it was ended while it was read
        except Exception:
            _log.exception("%s failed", method)
            call.end(
                grpc.StatusCode.INTERNAL,
                f"The call failed.{FIX}Ask who runs the server; its log has the reason.",
            )
        finally:
            await call.close()

    async def _requests(
        self, handler: Any, method: str, call: Call, context: Any
    ) -> AsyncGenerator[Any, None]:
        """Yield a call's messages, each timely and within bounds."""
        while True:
            late = asyncio.get_running_loop().call_later(
                MESSAGE_SECONDS,
                call.end,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"No message came in {MESSAGE_SECONDS:g} s.{FIX}Send it with the call.",
            )
            try:
                content = await context.read()
            finally:
                late.cancel()
            if content is grpc.aio.EOF:
                return
            yield self._read(handler, method, content)

    def _read(self, handler: Any, method: str, content: bytes) -> Any:
        try:
            message = handler.request_deserializer(content)
        except Exception:  # protobuf's own class of errors differs between its implementations
            raise ConfigError(
                f"The request of {method} is no such message.",
                "See sampler/service/sampling.proto.",
            ) from None
        if method.startswith(f"/{NAME}/"):
            check_request(message, self._bounds)
        return message


async def _replies(
    handler: Any, requests: AsyncGenerator[Any, None], call: Call
) -> AsyncGenerator[Any, None]:
    """Yield the replies of a handler of any kind."""
    if handler.request_streaming:
        replies = handler.stream_stream(requests, call)
    else:
        request = await anext(requests, None)
        if request is None:
            raise ConfigError("The call has no message.", "Send one.")
        if not handler.response_streaming:
            yield await handler.unary_unary(request, call)
            return
        replies = handler.unary_stream(request, call)
    async with aclosing(replies):
        async for reply in replies:
            yield reply
