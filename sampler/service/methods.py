"""The methods of `sampling.proto`, for the client's side and the server's, by their descriptor."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from sampler.service import sampling_pb2 as pb

_SERVICE: Any = pb.DESCRIPTOR.services_by_name["Sampling"]
NAME: str = _SERVICE.full_name


class SamplingStub:
    """A channel's methods, under their names in `sampling.proto`."""

    def __init__(self, channel: Any) -> None:
        for method in _SERVICE.methods:
            call = channel.unary_stream if method.server_streaming else channel.unary_unary
            made = call(
                f"/{NAME}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, made)


def handlers_of(service: object) -> Any:
    """Return the handlers of a servicer, which has a coroutine of each method's name."""
    handlers = {}
    for method in _SERVICE.methods:
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        handlers[method.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(service, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(NAME, handlers)
