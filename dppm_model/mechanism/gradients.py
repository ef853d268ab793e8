"""Per-record gradients of a network's loss, clipped one by one and summed on the integer grid.

Two methods give the same numbers:

- ``vmap``: `torch.func.vmap(grad)`, for any network.
- ``factors``: for networks whose parameters all stand in ``Linear`` and ``Conv2d`` layers. Such a
  layer's gradient for one record is a sum over its T places (pixels, noise draws) of outer
  products, ``sum_t b_t a_tᵀ`` with a_t the layer's input and b_t the loss's derivative by its
  output. One ordinary batched backward pass gives all b (Goodfellow 2015). With many places one
  batched matrix product per layer forms all records' gradients; with few they are never formed
  (`dppm_model.mechanism.ghost_clipping`).

Frozen parameters (``requires_grad`` false) are public and get no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.ghost_clipping import Factors, factored_sum
from dppm_model.mechanism.products import STEP, each
from dppm_model.mechanism.quantize import Grid

# losses(network, *inputs) -> (n,): the loss of each record. Every input has the records in its
# first axis; the network's rows belong to the records in order (n·K rows, K for each record).
Losses = Callable[..., torch.Tensor]
Method = Literal["vmap", "factors"]
Layer = nn.Linear | nn.Conv2d

CHUNK = 64  # records a time, see tests/benchmarks/gradients.py
_ROUNDING = 20  # the cost of rounding a coordinate, in operations, about


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that get a gradient, in the order of `nn.Module.parameters`."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def method_for(network: nn.Module) -> Method:
    """Return ``factors`` if all trainable parameters belong to its layers, else ``vmap``."""
    own = [p for layer in _layers(network) for p in layer.parameters() if p.requires_grad]
    every = list(trainable(network).values())
    same = len(own) == len(every) and all(p is q for p, q in zip(own, every, strict=True))
    return "factors" if same else "vmap"


def clipped_sum(
    network: nn.Module,
    losses: Losses,
    inputs: Sequence[torch.Tensor],
    grid: Grid,
    scale: float = 1.0,
    method: Method | None = None,
) -> NDArray[np.int64]:
    """Sum the records' gradients, each clipped to ``grid.clip_norm`` and rounded to integers.

    For ``network``, ``losses`` and ``inputs`` see `Losses`; n may be 0. A record's vector is its
    gradient times ``scale``, which is public. ``method`` is chosen by `method_for` if not given.
    Returns (d,) int64, in the order of `trainable`, each parameter flattened.
    """
    grid = replace(grid, clip_norm=grid.clip_norm / scale)
    total = np.zeros(sum(p.numel() for p in trainable(network).values()), dtype=np.int64)
    if not len(inputs[0]):
        return total
    for chunk in fixed_batches(inputs, CHUNK):
        if (method or method_for(network)) == "vmap":
            total += grid.sum([_vmap(network, losses, chunk)])
            continue
        factors = _factors(network, losses, chunk)
        if _few_places(factors):
            whole = torch.cat([m.flatten() for m in factored_sum(factors, grid)])
            added = torch.from_numpy(grid.whole(whole, len(chunk[0])))
        else:
            added = torch.from_numpy(grid.sum([_rows(factors)]))
        total += _in_order(network, added[None])[0].numpy()
    return total


def per_record(
    network: nn.Module,
    losses: Losses,
    inputs: Sequence[torch.Tensor],
    method: Method | None = None,
) -> torch.Tensor:
    """Return the records' gradients, (n, d), in the order of `trainable`; see `clipped_sum`."""
    if (method or method_for(network)) == "vmap":
        return _vmap(network, losses, inputs)
    return _in_order(network, _rows(_factors(network, losses, inputs)))


def _vmap(network: nn.Module, losses: Losses, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Per-record gradients (n, d) of any network."""
    parameters = {name: p.detach() for name, p in trainable(network).items()}

    def loss(values: dict[str, torch.Tensor], *record: torch.Tensor) -> torch.Tensor:
        return losses(_with(network, values), *(x[None] for x in record))[0]

    axes = (None, *(0 for _ in inputs))
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=axes)(parameters, *inputs)
    return torch.cat([g.flatten(1) for g in gradients.values()], dim=1)


def _layers(network: nn.Module) -> Iterator[Layer]:
    """Layers that `_factors` supports, in the order of their parameters."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            yield module
        elif type(module) is nn.Conv2d:
            same = tuple(k // 2 for k in module.kernel_size)
            plain = (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
            if plain and module.padding == same and module.padding_mode == "zeros":
                yield module


def _factors(
    network: nn.Module, losses: Losses, inputs: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the factors a (n, T, in) and b (n, T, out) of each trainable parameter, in order.

    A bias is a weight whose input is one. Windows of a convolution are in the order of `_patches`.
    """
    n = len(inputs[0])
    layers = [x for x in _layers(network) if any(p.requires_grad for p in x.parameters())]
    calls: dict[Layer, list[tuple[torch.Tensor, torch.Tensor]]] = {x: [] for x in layers}

    def keep(layer: Layer, args: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        # All parameters are constants here, so that the backward pass computes derivatives by
        # layers' outputs only; the graph begins at the first layer's output.
        out = out if out.requires_grad else out.requires_grad_()
        calls[layer].append((args[0].detach(), out))
        return out

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        constants = {name: p.detach() for name, p in network.named_parameters()}
        total = losses(_with(network, constants), *inputs).sum()
    finally:
        for hook in hooks:
            hook.remove()
    outs = [out for layer in layers for _, out in calls[layer]]
    slopes = iter(torch.autograd.grad(total, outs, allow_unused=True, materialize_grads=True))
    found = []
    for layer in layers:
        a, b = _joined([_factor(layer, a, next(slopes), n) for a, _ in calls[layer]])
        if layer.weight.requires_grad:
            found.append((a, b))
        if layer.bias is not None and layer.bias.requires_grad:
            found.append((b.new_ones((*b.shape[:2], 1)), b))
    return found


def _rows(factors: Factors) -> torch.Tensor:
    """Form the per-record gradients (n, d)."""
    return torch.cat([each(b.transpose(1, 2), a).flatten(1) for a, b in factors], dim=1)


def _few_places(factors: Factors) -> bool:
    """Whether the Gram trick takes fewer operations than forming and rounding the gradients."""
    gram = sum(4 * a.shape[1] ** 2 * (a.shape[2] + b.shape[2]) for a, b in factors)
    rows = sum(a.shape[2] * b.shape[2] * (a.shape[1] + _ROUNDING) for a, b in factors)
    return gram < rows


def _joined(pairs: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the places of a layer that was called several times; most are called once."""
    if len(pairs) == 1:
        return pairs[0]
    return torch.cat([a for a, _ in pairs], dim=1), torch.cat([b for _, b in pairs], dim=1)


def _factor(
    layer: Layer, a: torch.Tensor, b: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a layer's input and slope to (n, T, in) and (n, T, out).

    Places of a convolution, which are copied anyway, are padded with zeros to the sizes of `each`.
    """
    if isinstance(layer, nn.Conv2d):
        return _places(_patches(a, *layer.kernel_size), n), _places(b.permute(0, 2, 3, 1), n)
    return a.reshape(n, -1, a.shape[-1]), b.reshape(n, -1, b.shape[-1])


def _places(x: torch.Tensor, n: int) -> torch.Tensor:
    """Copy places (n·K, H, W, ...) to (n, T, ·), T at least K·H·W; the padding is zero."""
    each_image, size = x.shape[1:3], math.prod(x.shape[3:])
    images = len(x) // n
    places = images * math.prod(each_image)
    out = x.new_empty(n, places + -places % STEP, size)
    out[:, places:] = 0
    out[:, :places].view(n, images, *x.shape[1:]).copy_(x.view(n, images, *x.shape[1:]))
    return out


def _patches(a: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the zero-padded window around each place, a view (n, H, W, rows, columns·C).

    Channels come last, so that a row of a window is one run of memory (6 times faster here than
    `torch.nn.functional.unfold`).
    """
    n, channels, height, width = a.shape
    around = (0, 0, columns // 2, columns // 2, rows // 2, rows // 2)
    padded = nn.functional.pad(a.permute(0, 2, 3, 1), around).contiguous()
    image, row, place, _ = padded.stride()
    size = (n, height, width, rows, columns * channels)
    return padded.as_strided(size, (image, row, place, row, 1))


def _in_order(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Bring convolutions' blocks of rows (n, d) from (out, kh, kw, in) to (out, in, kh, kw)."""
    blocks, start = [], 0
    for p in trainable(network).values():
        block = rows[:, start : start + p.numel()]
        start += p.numel()
        if p.ndim == 4:
            out, channels, height, width = p.shape
            block = block.reshape(-1, out, height, width, channels).permute(0, 1, 4, 2, 3)
        blocks.append(block.flatten(1))
    return torch.cat(blocks, dim=1)


def _with(network: nn.Module, values: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the network as a function, with these values for its parameters."""

    def call(*args: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(network, values, args)
        return out

    return call
