"""Health checks (grpc.health.v1): the service is up for as long as its server answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sampler.service.gate import Call

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The servicer.

    Parameters
    ----------
    names
        Services that are served.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = {"", *names}

    async def Check(self, request: Any, call: Call) -> Any:
        """Say that a service is up, or that it is none of ours."""
        if request.service not in self._names:
            call.end(grpc.StatusCode.NOT_FOUND, "There is no such service here.")
        return _Response(status=_Response.SERVING)

    async def Watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
        """Say so once: nothing changes until the server stops, which ends the call."""
        known = request.service in self._names
        yield _Response(status=_Response.SERVING if known else _Response.SERVICE_UNKNOWN)
        await call.ended.wait()
