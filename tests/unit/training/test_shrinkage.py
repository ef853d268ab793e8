"""Shrinkage: exact without noise, better than the raw value with it, always positive."""

import pytest
import torch

from dppm_model.score.matrices import symmetric, upper, upper_outer
from dppm_model.training.shrinkage import octaves, shrink_covariance, subtract_covariance, wiener


def symmetric_noise(size: int, std: float, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    z = std * torch.randn((size, size), generator=g, dtype=torch.float64)
    return (z + z.T) / 2**0.5  # off the diagonal std, on it std · sqrt(2)


def truth(size: int = 40) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    root = torch.randn((size, 4), generator=g, dtype=torch.float64)
    return root @ root.T + torch.diag(1 / torch.arange(1, size + 1, dtype=torch.float64))


def test_upper_is_an_isometry_and_symmetric_undoes_it() -> None:
    matrices = torch.stack([truth(7), symmetric_noise(7, 1.0, 1)])
    triangles = upper(matrices)
    assert torch.allclose(triangles.norm(dim=1), torch.linalg.matrix_norm(matrices))
    assert torch.allclose(symmetric(triangles, 7), matrices)
    r = torch.randn((4, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(upper_outer(r), upper(r[:, :, None] * r[:, None, :]))
    rows, columns = torch.triu_indices(7, 7)  # the twin: a bare triangle is shorter
    assert (matrices[:, rows, columns].norm(dim=1) < 0.95 * triangles.norm(dim=1)).all()


def test_covariance_shrinkage_is_exact_without_noise() -> None:
    c = truth()
    assert torch.allclose(shrink_covariance(c, 0.0, torch.eye(40, dtype=c.dtype)), c, atol=1e-5)


@pytest.mark.parametrize("std", [0.05, 0.5, 5.0])
def test_covariance_shrinkage_helps(std: float) -> None:
    c = truth()
    prior = torch.diag(1 / torch.arange(1, 41, dtype=c.dtype))
    for seed in range(5):
        noisy = c + symmetric_noise(40, std, seed)
        clean = shrink_covariance(noisy, std, prior)
        assert torch.linalg.eigvalsh(clean).min() > 0
        assert torch.linalg.matrix_norm(clean - c) < torch.linalg.matrix_norm(noisy - c)


def test_subtracting_covariances() -> None:
    total, part = truth(), 0.5 * truth()
    assert torch.allclose(subtract_covariance(total, part), total - part)
    left = subtract_covariance(total, 3 * total)
    assert torch.allclose(left, 0.2 * total)
    assert torch.linalg.eigvalsh(left).min() > 0


def test_wiener_keeps_signal_and_drops_noise() -> None:
    g = torch.Generator().manual_seed(0)
    shell = torch.arange(200) // 100
    clean = torch.randn((5, 200), generator=g, dtype=torch.float64)
    clean[:, 100:] = 0
    noise = torch.full((200,), 0.25, dtype=torch.float64)
    noisy = clean + 0.5 * torch.randn((5, 200), generator=g, dtype=torch.float64)
    shrunk = wiener(noisy, noise, shell)
    assert (shrunk - clean)[:, :100].norm() < (noisy - clean)[:, :100].norm()
    assert (shrunk - clean)[:, 100:].norm() < 0.3 * (noisy - clean)[:, 100:].norm()
    assert torch.allclose(wiener(noisy, torch.zeros_like(noise), shell), noisy)


def test_octaves_start_at_zero_and_grow() -> None:
    std = 1 / torch.sqrt(1 + torch.arange(100, dtype=torch.float64) ** 2)
    shell = octaves(std)
    assert shell[0] == 0
    assert (shell.diff() >= 0).all()
