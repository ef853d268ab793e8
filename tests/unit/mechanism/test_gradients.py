"""Per-record gradients agree with a loop; no record moves a sum by more than G."""

import numpy as np
import pytest
import torch
from torch import nn

from dppm_model.errors import ModelError
from dppm_model.mechanism import gradients
from dppm_model.mechanism.gradients import clipped_sum, method_for, per_record, trainable
from dppm_model.mechanism.quantize import Grid
from dppm_model.training.gradient import require_separate_records

GRID = Grid(clip_norm=1.0, steps=1 << 20)


class Places(nn.Module):
    """Linear layers over several places of a record, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x.flatten(1).reshape(len(x), 8, 6)))
        return self.c(self.b(torch.tanh(self.b(h)))).mean(dim=(1, 2))


class Pictures(nn.Module):
    """Convolutions of two window shapes, normalised within a record, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, (3, 5), padding=(1, 2))
        self.b, self.c = nn.Conv2d(5, 4, 1, bias=False), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(nn.functional.group_norm(self.a(x), 1))
        return self.c(self.b(h).mean(dim=(2, 3)))[:, 0]


class Affine(nn.Module):
    """A normalisation with weights of its own: only vmap can do it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, stride=2), nn.GroupNorm(2, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.b(self.a(x))).mean(dim=(1, 2, 3))


class Dense(nn.Module):
    """Wide layers at one place a row: the Gram trick pays."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(48, 64), nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x.flatten(1))))[:, 0]


NETWORKS = {"places": Places, "pictures": Pictures, "affine": Affine, "dense": Dense}


def losses(network: nn.Module, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Two rows a record, averaged: x (n, 2, 3, 4, 4), t (n, 2)."""
    out = network(x.flatten(0, 1))
    return ((out - t.flatten()) ** 2).view(len(x), 2).mean(dim=1)


def example(kind: str, n: int = 7) -> tuple[nn.Module, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(n)
    network = NETWORKS[kind]()
    for p in network.parameters():
        p.data = torch.randn(p.shape, generator=generator) / 2
    x = torch.randn(n, 2, 3, 4, 4, generator=generator) * 2
    return network, [x, torch.randn(n, 2, generator=generator) * 3]


def by_loop(network: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    rows = []
    for i in range(len(inputs[0])):
        loss = losses(network, *(x[i : i + 1] for x in inputs))[0]
        found = torch.autograd.grad(loss, list(trainable(network).values()))
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("method", [None, "vmap", "factors"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_those_of_a_loop(kind: str, method: gradients.Method | None) -> None:
    network, inputs = example(kind)
    assert method_for(network) == ("vmap" if kind == "affine" else "factors")
    if (kind, method) == ("affine", "factors"):
        pytest.skip("not a network for this method")
    rows = per_record(network, losses, inputs, method)
    torch.testing.assert_close(rows, by_loop(network, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_sum_is_of_clipped_integer_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = example(kind, 11)
    monkeypatch.setattr(gradients, "CHUNK", 4)
    rows = per_record(network, losses, inputs)
    scale = 1 / float(torch.linalg.vector_norm(rows, dim=1).median())  # every second is clipped
    rows = rows * scale
    total = clipped_sum(network, losses, inputs, GRID, scale)
    expected = GRID.quantize(rows).sum(0).numpy()
    # The Gram trick shortens to 0.8 % below the clip norm, and rounds factors.
    error = 0.01 * np.linalg.norm(expected) if kind == "dense" else 1e-5 * GRID.steps
    np.testing.assert_allclose(total, expected, atol=error)
    unclipped = rows.sum(0).numpy() * GRID.steps  # the broken twin is seen
    assert np.abs(unclipped - expected).max() > 1e-2 * GRID.steps


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e18, float("nan")])
def test_one_record_moves_the_sum_by_at_most_g(kind: str, size: float) -> None:
    network, inputs = example(kind, 5)
    inputs[0][-1] *= size

    def moved(scale: float, steps: int) -> float:
        grid = Grid(1.0, steps)
        parts = [
            clipped_sum(network, losses, [x[:m] for x in inputs], grid, scale).astype(object)
            for m in (4, 5)
        ]
        return float(np.sqrt(float(((parts[1] - parts[0]) ** 2).sum())) / GRID.steps)

    assert moved(1.0, GRID.steps) <= 1
    if size == 1.0:  # a grid that clips ten times too late is noticed
        assert moved(10.0, 10 * GRID.steps) > 1


def test_gradients_are_formed_only_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(gradients, "_rows", refuse)
    clipped_sum(example("dense")[0], losses, example("dense")[1], GRID)
    with pytest.raises(AssertionError):
        clipped_sum(example("pictures")[0], losses, example("pictures")[1], GRID)


def test_no_records_give_zeros() -> None:
    network, inputs = example("pictures", 3)
    total = clipped_sum(network, losses, [x[:0] for x in inputs], GRID)
    assert total.dtype == np.int64 and not total.any()
    assert len(total) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_frozen_parameters_are_public_and_get_no_gradient(kind: str) -> None:
    network, inputs = example(kind)
    network.a.weight.requires_grad_(False)
    rows = per_record(network, losses, inputs)
    assert rows.shape[1] == sum(p.numel() for p in network.parameters()) - network.a.weight.numel()
    torch.testing.assert_close(rows, by_loop(network, inputs), rtol=1e-4, atol=1e-5)


class Mixing(nn.Module):
    """No layer of it is suspect, but it centres each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x.flatten(1) - x.flatten(1).mean(0))[:, 0]


def test_networks_that_mix_records_are_refused() -> None:
    _, inputs = example("pictures")
    batch_norm = nn.Sequential(nn.Conv2d(3, 2, 4), nn.BatchNorm2d(2), nn.Flatten(0))
    with pytest.raises(ModelError, match="BatchNorm"):
        require_separate_records(batch_norm, losses, inputs)
    with pytest.raises(ModelError, match="mixes records"):
        require_separate_records(Mixing(), losses, inputs)
    for kind in NETWORKS:
        require_separate_records(example(kind)[0], losses, inputs)
