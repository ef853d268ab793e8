"""Per-record gradients: one vector a record, clipped and summed on the integer grid.

`torch.func.vmap` of `grad` in chunks: on CPU it costs little more than the plain gradient of a
batch, and less than Opacus' hooks (tests/benchmarks/gradients.py). Opacus serves as the validator
and, in the tests, as a second opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from dppm_model.errors import ModelError

CHUNK = 64  # records per vmap: the fastest of 8 to 64 in tests/benchmarks/gradients.py

# loss(module, *record) -> scalar; every tensor of `record` is one record's, without a batch axis
Loss = Callable[..., torch.Tensor]


class Gradients:
    """Per-record gradients of a module whose trainable parameters are one flat vector.

    Parameters
    ----------
    module
        The network; parameters with ``requires_grad=False`` are public and get no gradient.
    loss
        ``loss(network, *record)``, where ``network(...)`` calls the module.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        self.module = module
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        shapes = dict(module.named_parameters())
        self.shapes = [shapes[name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]

        def record_loss(flat: torch.Tensor, *record: torch.Tensor) -> torch.Tensor:
            weights = self.unflatten(flat)
            return loss(lambda *inputs: functional_call(module, weights, inputs), *record)

        self._of_one = grad(record_loss)

    @property
    def dimension(self) -> int:
        """Number of trainable parameters, d."""
        return sum(self.sizes)

    def unflatten(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Name the pieces of a flat parameter vector (d,)."""
        pieces = torch.split(flat, self.sizes)
        return {n: p.reshape(s) for n, p, s in zip(self.names, pieces, self.shapes, strict=True)}

    def flatten(self) -> torch.Tensor:
        """Return the module's own trainable parameters as one vector (d,)."""
        parameters = dict(self.module.named_parameters())
        return torch.cat([parameters[name].detach().flatten() for name in self.names])

    def per_record(self, flat: torch.Tensor, *records: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the gradients (b, d) of chunks of records; ``records`` are (n, ...) tensors."""
        batched = vmap(self._of_one, in_dims=(None, *[0] * len(records)))
        for chunk in zip(*(torch.split(r, CHUNK) for r in records), strict=True):
            if len(chunk[0]):  # a Poisson sample may be empty
                yield batched(flat, *chunk)


def refuse_mixing(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Refuse a network in which one record's output depends on another record.

    Parameters
    ----------
    module
        Checked layer by layer with Opacus' `ModuleValidator`.
    forward
        Maps a batch (n,) of record numbers to outputs (n, ...); checked by changing one record.

    Raises
    ------
    ModelError
        Naming the layer; a per-record clip means nothing where records mix.
    """
    from opacus.validators import ModuleValidator

    if errors := ModuleValidator.validate(module, strict=False):
        raise ModelError(
            f"The network mixes records: {errors[0]}", "Use GroupNorm or LayerNorm, not BatchNorm."
        )
    together = forward(torch.tensor([0, 1, 2]))
    changed = forward(torch.tensor([0, 1, 3]))
    if not torch.allclose(together[:2], changed[:2], atol=1e-5):
        raise ModelError(
            "The network mixes records: changing one changed another's output.",
            "Normalise within a record only.",
        )
