"""A small client of `dppm serve`: images as arrays, refusals as exceptions.

    with SamplingClient("127.0.0.1:50051") as client:
        for image in client.sample({3: 10, 7: 10}, seed=1):
            print(image.label, image.index, image.pixels.shape)

It needs gRPC and NumPy, neither PyTorch nor Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import ConfigError
from sampler.service import sampling_pb2 as pb
from sampler.service.access import bearer, is_loopback, split_address
from sampler.service.methods import SamplingStub
from sampler.service.status import refusal_of


@dataclass(frozen=True)
class Sampled:
    """One image: ``pixels`` is (C, H, W) uint8, named by its label and index (and the seed)."""

    label: int
    index: int
    pixels: NDArray[np.uint8]


class Stream:
    """A stream of images to iterate over, described by ``header``.

    Call `cancel`, or close the client, to leave the rest.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        with _translated():
            self.header: pb.Header = next(call).header

    def __iter__(self) -> Iterator[Sampled]:
        """Yield images as they come; see `SamplingClient` for what is raised."""
        with _translated():
            for reply in self._call:
                image = reply.image
                shape = (image.channels, image.height, image.width)
                pixels = np.frombuffer(image.data, np.uint8).reshape(shape)
                yield Sampled(image.label, image.index, pixels)

    def cancel(self) -> None:
        """End the stream; the server stops at the next shard."""
        self._call.cancel()


class SamplingClient:
    """A connection to a sampling service. Its methods raise what the server refused with.

    Parameters
    ----------
    address
        ``host:port``.
    token
        This client's, where the server wants one.
    ca
        PEM file of the authority that signed the server's certificate; None talks without TLS.
    timeout
        Seconds for a short call.

    Raises
    ------
    ConfigError
        If a token would travel over the network in the clear, or ``ca`` cannot be read.
    ServiceError
        From the methods: `BadToken`, `QuotaExceeded`, `ServerBusy` (also if nothing answers),
        `UnknownJob`, `JobCancelled`, or itself for a deadline; also `ConfigError` for bad requests
        and `SamplerError`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        if token is not None and ca is None and not is_loopback(split_address(address)[0]):
            raise ConfigError(
                f"The token would be sent to {address} unencrypted.", "Give the server's CA file."
            )
        self._channel = _channel(address, ca)
        self._stub: Any = SamplingStub(self._channel)
        self._metadata = () if token is None else (bearer(token),)
        self._timeout = timeout

    def __enter__(self) -> SamplingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, which ends the jobs that are still streaming."""
        self._channel.close()

    def describe(self) -> pb.Description:
        """Return the description of the service and its limits."""
        answer: pb.Description = self._short(self._stub.Describe, pb.DescribeRequest())
        return answer

    def sample(
        self,
        counts: Mapping[int, int],
        *,
        seed: int = 0,
        first: int = 0,
        sampler: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ) -> Stream:
        """Request images by class.

        Parameters
        ----------
        counts
            Number of images of each class.
        seed, first
            Images are named by (seed, class, index); ``first`` is the first index.
        sampler
            Settings that differ from the run's, by their names in `SamplerSettings`.
        deadline
            Seconds for the whole stream; None: as long as it takes.
        """
        chosen = dict(sampler or {})
        if isinstance(chosen.get("step_size"), int | float):
            chosen["step_size"] = [chosen["step_size"]]
        try:
            batches = [pb.Batch(label=k, first=first, count=n) for k, n in counts.items()]
            request = pb.SampleRequest(
                batches=batches, seed=seed, sampler=pb.Sampler(**chosen), format=pb.RAW
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"No such request: {error}.", "See sampling.proto.") from None
        return Stream(self._stub.Sample(request, timeout=deadline, metadata=self._metadata))

    def status(self, job: str) -> pb.JobStatus:
        """Return how far a job is."""
        answer: pb.JobStatus = self._short(self._stub.Status, pb.StatusRequest(job=job))
        return answer

    def cancel(self, job: str) -> pb.JobStatus:
        """End a job, even one of another connection of this client."""
        answer: pb.JobStatus = self._short(self._stub.Cancel, pb.CancelRequest(job=job))
        return answer

    def _short(self, method: Any, request: Any) -> Any:
        with _translated():
            return method(request, timeout=self._timeout, metadata=self._metadata)


def _channel(address: str, ca: Path | None) -> Any:
    if ca is None:
        return grpc.insecure_channel(address)
    try:
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    except OSError as error:
        raise ConfigError(f"{ca}: {error.strerror}.", "Name a PEM file.") from None
    return grpc.secure_channel(address, credentials)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise the error of a status."""
    try:
        yield
    except grpc.RpcError as error:
        raise refusal_of(error) from None
