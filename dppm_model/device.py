"""Devices: a processor or a GPU, with exact arithmetic on both.

A device needs float64, in which integer vectors are formed (Lemma 14, PRIVACY.md), so Apple's
``mps`` is excluded. Nothing here starts a GPU: a process that has used one cannot be forked.
"""

from __future__ import annotations

import os
import re

import torch

from dppm_model.errors import ConfigError

_NAME = re.compile(r"auto|cpu|cuda(:[1-9]?[0-9])?")


def device_of(name: str) -> torch.device:
    """Return the device ``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is a GPU if there is one.

    From then on, a GPU computes as Lemma 15 requires (`_compute_exactly`).

    Raises ConfigError if it is none of these, or not there.
    """
    check_device_name(name)
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if (device.index or 0) >= count:
            raise ConfigError(f"device is {name}, which is not there.", "Use device=auto.")
        _compute_exactly()
    return device


def check_device_name(name: str) -> None:
    """Refuse a name that is valid on no machine; ConfigError if so."""
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigError(f"device is {name!r:.40}.", "Use auto, cpu, cuda or cuda:1.")


def _compute_exactly() -> None:
    """Make a GPU compute in full precision, with the same algorithm each time, or fail.

    TF32 keeps ten bits of a factor. Atomic additions come in any order: a record's last bits would
    vary, and the self-check (`dppm_model.batch_invariance`) would refuse.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS is first used
    torch.use_deterministic_algorithms(True)
