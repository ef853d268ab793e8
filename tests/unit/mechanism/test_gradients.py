"""Per-record gradients: equal to a loop and to Opacus; networks that mix records are refused."""

import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from dppm_model.errors import ModelError
from dppm_model.mechanism.gradients import CHUNK, Gradients, refuse_mixing
from dppm_model.mechanism.grid import Grid


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(1, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def loss(network: object, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x (1, 4, 4), y (3,): one record."""
    return ((network(x[None])[0] - y) ** 2).sum()  # type: ignore[operator]


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 4, 4, generator=g), torch.randn(n, 3, generator=g)


def by_loop(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    rows = []
    for i in range(len(x)):
        net.zero_grad()
        ((net(x[i, None])[0] - y[i]) ** 2).sum().backward()
        rows.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    return torch.stack(rows)


def test_equal_to_a_loop_and_to_opacus() -> None:
    net, (x, y) = small_net(), data(2 * CHUNK + 5)
    gradients = Gradients(net, loss)
    ours = torch.cat(list(gradients.per_record(gradients.flatten(), x, y)))
    torch.testing.assert_close(ours, by_loop(net, x, y), rtol=1e-4, atol=1e-5)
    wrapped = GradSampleModule(small_net(), loss_reduction="sum")
    ((wrapped(x) - y) ** 2).sum().backward()
    opacus = torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], dim=1)
    torch.testing.assert_close(ours, opacus, rtol=1e-4, atol=1e-5)


def test_the_batchs_mean_gradient_is_not_a_records_gradient() -> None:
    """Twin: the plain gradient shared out equally has the same sum, and is caught."""
    net, (x, y) = small_net(), data(8)
    rows = by_loop(net, x, y)
    twin = rows.mean(0).expand_as(rows)
    torch.testing.assert_close(twin.sum(0), rows.sum(0))
    assert not torch.allclose(twin, rows, rtol=1e-4, atol=1e-5)
    assert not torch.equal(
        Grid(1.0, 1 << 20).quantise(twin).sum(0), Grid(1.0, 1 << 20).quantise(rows).sum(0)
    )


def test_frozen_parameters_get_no_gradient() -> None:
    net = small_net()
    for p in net[0].parameters():
        p.requires_grad_(False)
    gradients = Gradients(net, loss)
    assert gradients.dimension == sum(p.numel() for p in net.parameters() if p.requires_grad)
    rows = torch.cat(list(gradients.per_record(gradients.flatten(), *data(3))))
    torch.testing.assert_close(rows, by_loop(net, *data(3)), rtol=1e-4, atol=1e-5)


class Mixer(nn.Module):
    """Subtracts the batch mean: no layer that a validator knows, and yet records mix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.linear(x.flatten(1))
        return h - h.mean(0)


@pytest.mark.parametrize(
    "net",
    [nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)), Mixer()],
    ids=["batch norm", "batch mean"],
)
def test_networks_that_mix_records_are_refused(net: nn.Module) -> None:
    x, _ = data(4)
    with pytest.raises(ModelError, match="mixes records"):
        refuse_mixing(net, lambda index: net(x[index]))
    refuse_mixing(small_net(), lambda index: small_net()(x[index]))
