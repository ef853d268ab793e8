"""`dppm serve RUN`: the run's images over gRPC, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.sampling import PROMISED, retaken, trained, with_steps
from deploy.show import console, print_json
from sampler.pool import PoolSettings
from sampler.service.methods import NAME
from sampler.service.requests import Limits
from sampler.service.server import ServerSettings, serving
from sampler.settings import SamplerSettings


def serve(
    folder: Path | None,
    overrides: Sequence[str],
    *,
    images_per_hour: int,
    jobs_per_client: int,
    workers: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """`dppm serve RUN`: overrides set the defaults of requests; the rest are `ServerSettings`."""
    limits = Limits(images_per_hour=images_per_hour, jobs_per_client=jobs_per_client)
    run = trained(folder, "serve")
    tree = retaken(run, overrides, "sampler", "pool", "device")
    sampler = with_steps(run, tree["sampler"], tree["device"])
    privacy = run.read_json(run.privacy)
    pool = PoolSettings(**tree["pool"] | {"workers": workers}, device=tree["device"])
    service = ServerSettings(**settings, pool=pool, limits=limits)
    try:
        with serving(
            run.model,
            privacy={key: privacy[key] for key in PROMISED},
            sampler=SamplerSettings.from_dict(sampler),
            settings=service,
        ) as server:
            if as_json:
                print_json({"address": server.address, "service": NAME})
                sys.stdout.flush()  # a script may be waiting for it
            example = grpcurl(server.address, service)
            text = f"{run.folder} at {server.address}: {example}"
            console.print(text, markup=False, soft_wrap=True)
            server.wait()
    except KeyboardInterrupt:
        console.print("Stopped.")


def grpcurl(address: str, settings: ServerSettings) -> str:
    """Return a command that asks a server for two images."""
    guard = "-plaintext" if settings.tls_cert is None else f"-cacert {settings.tls_cert}"
    if settings.token_file is not None:
        guard += " -H 'authorization: Bearer TOKEN'"
    request = '{"batches": [{"label": 0, "count": 2}]}'
    return f"grpcurl {guard} -d '{request}' {address} {NAME}/Sample"
