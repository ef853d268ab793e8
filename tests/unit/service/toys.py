"""Servers for tests: on loopback, at a free port, with models of a given pace."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sampler.service.client import SamplingClient
from sampler.service.requests import Limits
from sampler.service.server import Running, ServerSettings, serving
from sampler.settings import SamplerSettings
from tests.unit.sampler.mixture import pictures

FAST = SamplerSettings(num_levels=4)
QUICK = SamplerSettings(method="heun", num_levels=2)
PRIVACY = {
    "epsilon_release": 1.0,
    "epsilon_secure_sum": 1.5,
    "epsilon_site": 4.0,
    "delta": 1e-5,
    "unit": "record",
}
MODEL = pictures()
SHARD = 4
ALICE, BOB = "a" * 32, "b" * 32


def token_file(folder: Path) -> Path:
    path = folder / "tokens.txt"
    path.write_text(f"# clients\n\nalice {ALICE}\nbob   {BOB}\n")
    return path


@dataclass
class Grey:
    """Large pictures of nothing; each evaluation takes ``pause`` seconds."""

    shape: tuple[int, int, int] = (3, 128, 128)
    classes: int = 3
    pause: float = 0.0
    pyramid: None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    def coordinates(self) -> "Grey":
        return self

    def image(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause)
        return x / 2


LARGE = Grey((3, 256, 256))  # the transport's buffers hold four or five shards of it


@dataclass
class Broken(Grey):
    """Fails at class 1 with an unexpected error, and at class 2 with infinite values."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if int(y[0]) == 1:
            raise RuntimeError("a secret of the implementation")
        return x * float("inf") if int(y[0]) == 2 else x / 2


@contextmanager
def server(
    folder: Path,
    model: Any = MODEL,
    *,
    sampler: SamplerSettings = FAST,
    limits: dict[str, int] | None = None,
    **changes: Any,
) -> Iterator[Running]:
    path = folder / "model.pickle"
    if not path.exists():
        path.write_bytes(pickle.dumps(model))
    settings = {"address": "127.0.0.1:0", "shard_size": SHARD, "limits": Limits(**(limits or {}))}
    with serving(
        path,
        privacy=PRIVACY,
        sampler=sampler,
        settings=ServerSettings(**(settings | changes)),
        loader=pickle.loads,
    ) as running:
        yield running


@contextmanager
def connected(folder: Path, model: Any = MODEL, **changes: Any) -> Iterator[SamplingClient]:
    with server(folder, model, **changes) as running, SamplingClient(running.address) as client:
        yield client


def eventually(true: Callable[[], object], seconds: float = 5.0) -> bool:
    """Wait for something that other threads bring about."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def our_threads() -> set[str]:
    """Threads of servers that are up: those that draw, and those that answer calls."""
    return {t.name for t in threading.enumerate() if t.name.startswith(("draw-", "call"))}
