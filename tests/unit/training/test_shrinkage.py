"""Shrinkage: exact without noise, better than the raw value with it, always positive."""

import pytest
import torch

from dppm_model.score.matrices import symmetric, upper, upper_outer
from dppm_model.training.moments import principal_basis
from dppm_model.training.shrinkage import (
    octaves,
    shell_means,
    shrink_covariance,
    shrink_difference,
    subtract_covariance,
    wiener,
)


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


def test_of_a_difference_only_what_stands_out_of_the_noise_is_kept() -> None:
    known, least = truth() / 40, 0.05
    loud = torch.zeros(40, dtype=known.dtype)
    loud[3] = 1
    own = 1.5 * known + 5 * torch.outer(loud, loud)
    exact = shrink_difference(own, known, 0.0, least)
    assert torch.linalg.eigvalsh(exact).min() > 0
    floor = torch.linalg.eigvalsh(own).clamp(min=least * own.trace() / 40)
    assert torch.allclose(torch.linalg.eigvalsh(exact), floor)  # as it is, but for the least
    same = shrink_difference(1.5 * known, known, 0.0, 1e-9)
    assert torch.allclose(same, 1.5 * known)
    for seed in range(5):
        noisy = own + symmetric_noise(40, 0.1, seed)
        found = shrink_difference(noisy, known, 0.1, least)
        error, raw = (torch.linalg.matrix_norm(m - own) for m in (found, noisy))
        assert error < 0.5 * raw
        assert 2.5 < float(found[3, 3] - known[3, 3]) < 7.5


def test_under_noise_that_covers_it_a_covariance_is_the_known_one_but_for_its_size() -> None:
    known = truth()
    values, vectors = torch.linalg.eigh(known)
    for seed in range(5):
        found = shrink_difference(known + symmetric_noise(40, 45.0, seed), known, 50.0, 0.05)
        size = float(torch.linalg.eigvalsh(found)[-1] / values[-1])
        floor = 0.05 * size * known.trace() / 40
        expected = (vectors * (size * values).clamp(min=floor)) @ vectors.T
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("rank", [1, 4, 40])
def test_a_principal_basis_is_orthonormal_and_holds_the_covariance(rank: int) -> None:
    covariance = truth()
    whitening = torch.linspace(1, 3, 40, dtype=covariance.dtype)
    axes, variance = principal_basis(covariance, whitening, rank)
    assert torch.allclose(axes.T @ axes, torch.eye(40, dtype=axes.dtype), atol=1e-12)
    turned = axes.T @ covariance @ axes
    for block in (slice(rank), slice(rank, 40)):
        assert torch.allclose(turned[block, block], torch.diag(variance[block]), atol=1e-10)
        assert (variance[block].diff() <= 0).all()
    even = torch.ones_like(whitening)  # without weights they are the covariance's own
    axes, variance = principal_basis(covariance, even, rank)
    assert torch.allclose((axes * variance) @ axes.T, covariance, atol=1e-10)


def test_the_first_axes_span_what_is_largest_under_the_weights() -> None:
    """A direction of small variance comes first if its weight says so."""
    covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    first = {
        w: principal_basis(covariance, torch.tensor(w), 1)[0][:, 0].abs().argmax().item()
        for w in ((1.0, 1.0, 1.0), (1.0, 1.0, 3.0))
    }
    assert list(first.values()) == [0, 2]


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


def test_octaves_start_at_zero_and_grow_in_each_channel() -> None:
    std = 1 / torch.sqrt(1 + torch.arange(100, dtype=torch.float64) ** 2)
    channel = torch.arange(100) % 3
    shell = octaves(std, channel)
    assert shell[0] == 0
    found = [shell[channel == c] for c in range(3)]
    assert all((own.diff() >= 0).all() for own in found)
    assert found[0].max() < found[1].min() < found[1].max() < found[2].min()


def test_a_shell_has_the_mean_of_its_values() -> None:
    values, shell = torch.tensor([1.0, 3.0, 10.0, 5.0]), torch.tensor([0, 0, 2, 0])
    assert shell_means(values, shell).tolist() == [3, 3, 10, 3]
