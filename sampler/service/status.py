"""Refusals as the status of a call, and back: a code for each class of error, message and hint."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from dppm_model import errors

CODES: Mapping[type[errors.DppmError], grpc.StatusCode] = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BadToken: grpc.StatusCode.UNAUTHENTICATED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ServerBusy: grpc.StatusCode.UNAVAILABLE,
    errors.UnknownJob: grpc.StatusCode.NOT_FOUND,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.SamplerError: grpc.StatusCode.INTERNAL,
}
_ERRORS = {code: error for error, code in CODES.items()}
FIX = " Fix: "  # between message and hint, in the text of a status


def refusal_text(error: errors.DppmError) -> str:
    """Return a refusal as the text of a status."""
    return f"{error.message}{FIX}{error.hint}"


def refusal_of(status: grpc.RpcError) -> errors.DppmError:
    """Return the error of a status; `ServiceError` if it is not in `CODES`."""
    name = status.code().name
    message, _, hint = (status.details() or name).partition(FIX)
    kind = _ERRORS.get(status.code(), errors.ServiceError)
    return kind(message, hint or f"{name}: see sampler/service/sampling.proto.")
