"""A device of which this machine has none: its tensors are a CPU's, and meet no CPU's tensors.

Whatever is asked of them is computed on the CPU, to the same bits; but an operation on tensors both
of this device and of the CPU fails, as it would on a GPU, if the latter have a dimension. So do
their bytes, before they are copied to the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_MOVES = ("_to_copy", "copy_")  # between devices


class Elsewhere(torch.Tensor):
    """A tensor of that device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class ElsewhereMode(TorchDispatchMode):
    """Makes tensors there that are asked for by name; without it there is no such device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = any(isinstance(t, Elsewhere) for t in tensors)
    if there and name not in _MOVES:
        left = [tuple(t.shape) for t in tensors if t.ndim and not isinstance(t, Elsewhere)]
        assert not left, f"{func} of tensors there and of tensors {left} of the CPU"
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        there = torch.device(device).type == DEVICE.type
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if name.endswith("_") and isinstance(args[0], torch.Tensor):
        return args[0]
    return tree_map(_outer, found) if there else found


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, Elsewhere) else x


def _outer(x: Any) -> Any:
    return Elsewhere(x) if isinstance(x, torch.Tensor) else x
